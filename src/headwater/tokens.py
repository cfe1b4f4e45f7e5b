"""Access tokens of a connection: renewed in time, by one task of one node, and stored before they are used.

fresh? ──> given      stale ──> lease ──> read again ──> ask the provider ──> store, fenced ──> given
                                  └── another node has it: wait, read again
disconnected? ──> taken away here ──> then the provider is asked to withdraw it
"""

from __future__ import annotations

import asyncio
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from headwater.answer import HttpResponse
from headwater.clock import Clock
from headwater.connection import KeyRing, secret_aad
from headwater.context import HttpPort
from headwater.deadline import Deadlines
from headwater.errors import CredentialsError, HeadwaterError, ProviderError, SettingsError
from headwater.failpoint import failpoint
from headwater.grant import (
    DEFAULT_SECONDS,
    LEASE_SECONDS,
    TOKEN_CHARACTERS_MAX,
    TOKEN_FIELD,
    GrantStore,
    OAuth,
    Token,
    completed,
)
from headwater.redaction import Redactor
from headwater.store import ConnectionStore

WAIT_SECONDS = 0.25  # between two looks for what another node obtained
WAIT_SECONDS_MAX = 30.0
REQUEST_SECONDS_MAX = 30.0  # shorter than the lease
REVOKE_SECONDS_MAX = 20.0  # of all attempts to withdraw an authorisation: somebody waits for it
SAID_CHARACTERS_MAX = 200
_OURS = frozenset(
    {"invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"}
)  # an operator mends these


class TokenStore(ConnectionStore, GrantStore, Protocol):
    """What tokens are kept in."""


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """What became at the provider of an authorisation that is forgotten here."""

    is_revoked: bool | None  # None: the connector names no URL to ask, or there was nothing to withdraw
    problem: str = ""  # why it was not, without a secret


@dataclass(kw_only=True)
class Refreshes:
    """The renewals under way in this process, by connection."""

    tasks: dict[int, asyncio.Task[Token]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens of one live connection; its repr shows none."""

    connection_id: int
    connection: str  # key
    oauth: OAuth
    settings: Mapping[str, Any] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    http: HttpPort = field(repr=False)
    store: TokenStore = field(repr=False)
    key_ring: KeyRing = field(repr=False)
    clock: Clock = field(repr=False)
    refreshes: Refreshes = field(repr=False)
    forget: Callable[[int], None] = field(repr=False)  # the live connection, once its token is another

    async def access_token(self) -> str:
        """See `OAuthPort.access_token`.

        Raises `CredentialsError` where the account has not authorised us, or the provider takes it back.
        """
        text = self.secrets.get(TOKEN_FIELD)
        if text is None:
            raise unauthorised(self.connection)
        token = Token.of_text(text)
        if token.is_fresh(self.clock.now()):
            return token.access_token
        return (await self._renewed()).access_token

    @property
    def kept(self) -> Token | None:
        """What is stored; None where the account has not authorised us."""
        text = self.secrets.get(TOKEN_FIELD)
        return None if text is None else Token.of_text(text)

    def authorize_url(self, *, state: str, verifier: str, redirect_uri: str) -> str:
        """Where the account's owner says yes; `SettingsError` where a setting that it needs is not set."""
        client_id = self.settings.get(self.oauth.client_id)
        if not isinstance(client_id, str) or not client_id:
            raise SettingsError(f"The setting `{self.oauth.client_id}` of {self.connection} is not set.")
        try:
            url = completed(self.oauth.authorize_url, self.settings)
        except ValueError as error:
            raise SettingsError(f"{self.connection} cannot be authorised: {error}.") from None
        words = {
            **self.oauth.params,
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "state": state,
        }
        if self.oauth.scopes:
            words["scope"] = " ".join(self.oauth.scopes)
        if self.oauth.pkce:
            challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
            words |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        return f"{url}{'&' if '?' in url else '?'}{urlencode(words)}"

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> Token:
        """The token of an authorization code."""
        words = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        return await self._ask(words | ({"code_verifier": verifier} if self.oauth.pkce else {}), before=None)

    async def keep(self, token: Token) -> None:
        """Store a token that the account gave just now, over whatever is under way."""
        epoch = await self._lease_over()
        await self.store.put_grant(self.connection_id, epoch=epoch, name=TOKEN_FIELD, ciphertext=self._sealed(token))
        self.forget(self.connection_id)

    async def take(self) -> Token | None:
        """What is stored, taken away over whatever is under way; None where there is none."""
        epoch = await self._lease_over()
        try:
            token = await self._stored()
        except CredentialsError:
            token = None
        taken = await self.store.put_grant(self.connection_id, epoch=epoch, name=TOKEN_FIELD, ciphertext=None)
        self.forget(self.connection_id)
        return token if taken else None  # else somebody authorised it anew meanwhile

    async def revoke(self, token: Token | None) -> Withdrawal:
        """Ask the provider to withdraw what nobody here uses any more (RFC 7009), as far as it can be asked.

        The refresh token first: most providers end all of the authorisation with it. A provider that is away is asked
        again within `REVOKE_SECONDS_MAX`, and no longer; nothing is raised.
        """
        if self.oauth.revoke_url is None or token is None:
            return Withdrawal(is_revoked=None)
        own = [("refresh_token", token.refresh_token), ("access_token", token.access_token)]
        try:
            with Deadlines(self.clock).limit(REVOKE_SECONDS_MAX):
                for kind, text in own:
                    if text is not None:
                        await self._withdraw(self.oauth.revoke_url, text, kind)
        except TimeoutError:
            return Withdrawal(is_revoked=False, problem=f"it gave no answer within {REVOKE_SECONDS_MAX:g} s.")
        except HeadwaterError as error:
            # A token that another node renewed is not among those that the client leaves out of what it tells.
            said = Redactor(text for _, text in own if text is not None).line(str(error))
            return Withdrawal(is_revoked=False, problem=said)
        return Withdrawal(is_revoked=True)

    async def _withdraw(self, url: str, token: str, kind: str) -> None:
        answer = await self._post(
            url, {"token": token, "token_type_hint": kind}, seconds=REVOKE_SECONDS_MAX, ok=(400,), idempotent=True
        )
        if answer.status == 400 and (code := _object(answer).get("error")) != "invalid_token":  # else it has ended
            raise ProviderError(f"The provider answered: {str(code)[:SAID_CHARACTERS_MAX]}.")

    async def _lease_over(self) -> int:
        at = self.clock.now()
        epoch = await self.store.lease_grant(self.connection_id, at=at, lease_seconds=LEASE_SECONDS, takes_over=True)
        assert epoch is not None, "it was taken over"
        return epoch

    async def _renewed(self) -> Token:
        task = self.refreshes.tasks.get(self.connection_id)
        if task is None:
            task = asyncio.create_task(self._renew())
            self.refreshes.tasks[self.connection_id] = task
            task.add_done_callback(self._over)
        # Shielded: a run that is cancelled must not lose a refresh token that the provider has just replaced.
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Token]) -> None:
        if self.refreshes.tasks.get(self.connection_id) is task:
            del self.refreshes.tasks[self.connection_id]
        if not task.cancelled():
            task.exception()  # whoever waits is told; nobody may be waiting any more

    async def _renew(self) -> Token:
        deadline = self.clock.monotonic() + WAIT_SECONDS_MAX
        while True:
            epoch = await self.store.lease_grant(self.connection_id, at=self.clock.now(), lease_seconds=LEASE_SECONDS)
            if epoch is not None:
                return await self._renew_under(epoch)
            if self.clock.monotonic() > deadline:
                raise ProviderError(f"Another node renews the token of {self.connection}, and is not done.")
            await self.clock.sleep(WAIT_SECONDS)
            token = await self._stored()
            if token.is_fresh(self.clock.now()):
                self.forget(self.connection_id)
                return token

    async def _renew_under(self, epoch: int) -> Token:
        try:
            before = await self._stored()
            if before.is_fresh(self.clock.now()):
                await self.store.release_grant(self.connection_id, epoch=epoch)
                self.forget(self.connection_id)
                return before
            if before.refresh_token is None:
                raise CredentialsError(
                    f"The authorisation of {self.connection} has ended.", hint="Connect it again on its settings page."
                )
            words = {"grant_type": "refresh_token", "refresh_token": before.refresh_token}
            token = await self._ask(words, before=before)
        except BaseException:
            await asyncio.shield(self.store.release_grant(self.connection_id, epoch=epoch))
            raise
        failpoint("oauth.before_store")
        if not await self.store.put_grant(
            self.connection_id, epoch=epoch, name=TOKEN_FIELD, ciphertext=self._sealed(token)
        ):
            token = await self._of_others(token)
        failpoint("oauth.stored")
        self.forget(self.connection_id)
        return token

    async def _of_others(self, mine: Token) -> Token:
        """What stands after a renewal that was overtaken: theirs who authorised it anew, or nothing at all."""
        try:
            return await self._stored()
        except CredentialsError:
            await self.revoke(mine)  # it was disconnected, and what came of the renewal is to end like the rest
            raise

    async def _stored(self) -> Token:
        for one in await self.store.secrets(self.connection_id, at=self.clock.now()):
            if one.field == TOKEN_FIELD:
                aad = secret_aad(self.connection, TOKEN_FIELD)
                return Token.of_text(self.key_ring.decrypt(one.ciphertext, aad=aad))
        raise unauthorised(self.connection)

    def _sealed(self, token: Token) -> str:
        return self.key_ring.encrypt(token.sealed_text(), aad=secret_aad(self.connection, TOKEN_FIELD))

    async def _ask(self, words: Mapping[str, str], *, before: Token | None) -> Token:
        asked_at = self.clock.now()
        answer = await self._post(self.oauth.token_url, words, seconds=REQUEST_SECONDS_MAX, ok=(400, 401))
        said = _object(answer)
        if answer.status >= 400:
            raise self._refusal(said)
        token = said.get("access_token")
        if not isinstance(token, str) or not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
            raise ProviderError(f"The provider of {self.connection} gave no access token.")
        lasts = said.get("expires_in", DEFAULT_SECONDS)
        refresh, scope = said.get("refresh_token"), said.get("scope")
        kept = before.refresh_token if before else None  # a provider that does not rotate it need not repeat it
        return Token(
            access_token=token,
            refresh_token=refresh if isinstance(refresh, str) and refresh else kept,
            expires_at=asked_at + timedelta(seconds=_seconds(lasts)),
            scope=scope if isinstance(scope, str) else before.scope if before else " ".join(self.oauth.scopes),
        )

    async def _post(
        self, declared: str, words: Mapping[str, str], *, seconds: float, ok: tuple[int, ...], idempotent: bool = False
    ) -> HttpResponse:
        """The answer to a form of the client, which proves itself (RFC 6749, 2.3.1)."""
        try:
            url = completed(declared, self.settings)
        except ValueError as error:
            raise SettingsError(f"The provider of {self.connection} cannot be asked: {error}.") from None
        client_id, headers = str(self.settings.get(self.oauth.client_id) or ""), {"Accept": "application/json"}
        form = dict(words)
        secret = self.secrets.get(self.oauth.client_secret) if self.oauth.client_secret else None
        if secret is not None and self.oauth.client_auth == "basic":
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": client_id} | ({"client_secret": secret} if secret is not None else {})
        answer: HttpResponse = await self.http.request(
            "POST", url, data=form, headers=headers, ok=ok, timeout_seconds=seconds, idempotent=idempotent
        )
        return answer

    def _refusal(self, said: Mapping[str, Any]) -> Exception:
        code = str(said.get("error", "no reason"))[:SAID_CHARACTERS_MAX]
        if code in _OURS:
            return CredentialsError(
                f"The provider refuses the authorisation of {self.connection}: {code}.",
                hint="Connect it again on its settings page.",
            )
        return ProviderError(f"The provider gave {self.connection} no token: {code}.")


def unauthorised(connection: str) -> CredentialsError:
    """The error of a connection whose account has not authorised us."""
    return CredentialsError(f"{connection} is not authorised yet.", hint="Connect it on its settings page.")


def _object(answer: Any) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        raise ProviderError("The provider answered no JSON.") from error
    if not isinstance(found, dict):
        raise ProviderError("The provider answered no JSON object.")
    return found


def _seconds(value: Any) -> float:
    try:
        return min(max(float(value), 0.0), 10 * 365 * 86_400.0)
    except (TypeError, ValueError):
        return DEFAULT_SECONDS
