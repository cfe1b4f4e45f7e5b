"""Connecting an account, changing its settings and secrets, and removing it with all that came of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

from headwater.acts.act import INTEGER_MAX, Act, Desk, Done, Place, Plan, counted, options, require_expected
from headwater.acts.connections import ConnectionAct
from headwater.acts.streams import Name
from headwater.catalog import Connector
from headwater.connection import encrypt_secrets, endpoint_id, validate_settings
from headwater.declaration import declarations
from headwater.errors import HeadwaterError, NotFoundError, UsageError, near_miss
from headwater.intention import StoredConnection
from headwater.tokens import Tokens, Withdrawal

if TYPE_CHECKING:
    from headwater.project import Project

KEY_CHARACTERS_MAX = 100
OVERLAP_HOURS_MAX = 30 * 24

Key = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=KEY_CHARACTERS_MAX,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]*$",
        title="Name",
        description="Yours for it; it stays.",
    ),
]


class AddConnection(Act, frozen=True, kw_only=True):
    """Connect an account of a provider."""

    name: ClassVar[str] = "connections.add"
    title: ClassVar[str] = "Connect"

    connector: Name
    key: Key
    tenant: Name | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    paused: bool = False

    def __repr__(self) -> str:
        return f"AddConnection(connector={self.connector!r}, key={self.key!r})"  # the secrets stay unsaid

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        connector = (await self._free(desk)).connector
        validate_settings(connector, {**self.settings, **self.secrets})
        streams = counted(len(connector.streams), "stream")
        return Plan(
            sentence=f"{self.key} ingests {streams} of {connector.name}"
            + (", once it is resumed." if self.paused else ".")
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        project = await self._free(desk)
        plain, secrets = validate_settings(project.connector, {**self.settings, **self.secrets})
        at, ring = desk.clock.now(), desk.at_work().key_ring
        stored = await desk.store.add_connection(
            key=self.key,
            connector=self.connector,
            tenant=self._tenant(desk),
            endpoint_id=endpoint_id(),
            settings=plain,
            secrets=encrypt_secrets(ring, self.key, secrets),
            at=at,
        )
        if project.connector.connection.oauth is not None:
            reason = f"{self.key} is not authorised yet: connect it on its settings page."
            await desk.store.pause_connection(stored.id, reason=reason, needs_attention=True, at=at)
        elif self.paused:
            await desk.store.pause_connection(stored.id, reason="added paused", needs_attention=False, at=at)
        await desk.store.declare_streams(stored.id, declarations(stored, project.connector, at), at=at)
        return Done(
            sentence=f"{self.key} is connected.",
            value={"key": self.key, "connector": self.connector, "tenant": stored.tenant, "paused": self.paused},
            target=self.key,
            place=Place(("connections", self.key, "settings")),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        words = [word for name, value in self.settings.items() for word in ("--set", f"{name}={_text(value)}")]
        words += [word for name in self.secrets for word in ("--secret-file", f"{name}=PATH")]
        return [
            "connections",
            "add",
            self.connector,
            "--key",
            self.key,
            *words,
            *options(tenant=self.tenant, paused=self.paused),
        ]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connect", self.connector))

    async def _free(self, desk: Desk) -> Project:
        """The project, where the key is still to be had."""
        desk.at_work()
        project = desk.project(self.connector)
        if await desk.store.connection(self.key) is not None:
            raise UsageError(f"The key `{self.key}` is taken.", hint="Choose another one.")
        for name in self.secrets:
            require_secret(project.connector, name)
        return project

    def _tenant(self, desk: Desk) -> str | None:
        if desk.tenant is not None and self.tenant not in (None, desk.tenant):
            raise UsageError("The tenant is not yours.")
        return self.tenant or desk.tenant


class ChangeSettings(ConnectionAct, frozen=True, kw_only=True):
    """Change plain settings of a connection; what is not named stays, or goes where `replaces` says so."""

    name: ClassVar[str] = "connections.set"
    title: ClassVar[str] = "Change settings"

    settings: dict[str, Any]
    replaces: bool = False

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        stored, _, plain = await self._checked(desk)
        changed = sorted(name for name in {*plain, *stored.settings} if plain.get(name) != stored.settings.get(name))
        named = ", ".join(changed)
        sentence = f"{named} of {stored.key} changes." if changed else f"Nothing of {stored.key} changes."
        return Plan(sentence=sentence, is_possible=bool(changed))

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        stored, connector, plain = await self._checked(desk)
        changed = sorted(name for name in {*plain, *stored.settings} if plain.get(name) != stored.settings.get(name))
        await desk.store.update_settings(stored.id, plain)
        now, at = await desk.connection(stored.key), desk.clock.now()
        states = await desk.store.streams(at=at, connection=stored.key)
        polled = {(one.connection_id, one.stream, one.partition) for one in states if one.mode == "poll"}
        await desk.store.declare_streams(stored.id, declarations(now, connector, at, polled=polled), at=at)
        desk.at_work().connections.forget(stored.id)
        return Done(
            sentence=f"The settings of {stored.key} are changed."
            if changed
            else f"Nothing of {stored.key} has changed.",
            value={"fields": changed},
            target=stored.key,
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return [
            "connections",
            "set",
            self.connection,
            *[f"{name}={_text(value)}" for name, value in self.settings.items()],
        ]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connections", self.connection, "settings"))

    async def _checked(self, desk: Desk) -> tuple[StoredConnection, Connector, dict[str, Any]]:
        stored = await desk.connection(self.connection)
        connector = desk.project(stored.connector).connector
        for name in self.settings:
            if name in connector.secret_fields:
                raise UsageError(f"`{name}` is a secret.", hint="It is set apart from the plain settings.")
        names = {one.field for one in await desk.store.secrets(stored.id, at=desk.clock.now())}
        values = self.settings if self.replaces else {**stored.settings, **self.settings}
        plain, _ = validate_settings(connector, values, stored_secrets=names)
        return stored, connector, plain


class SetSecret(ConnectionAct, frozen=True, kw_only=True):
    """Set a secret of a connection; for deliveries, the one before stays valid for the overlap."""

    name: ClassVar[str] = "connections.secret"
    title: ClassVar[str] = "Set the secret"

    field: Name
    value: Annotated[str, msgspec.Meta(min_length=1)]
    overlap_hours: Annotated[float, msgspec.Meta(ge=0, le=OVERLAP_HOURS_MAX)] = 0.0

    def __repr__(self) -> str:
        return f"SetSecret(connection={self.connection!r}, field={self.field!r})"

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self._checked(desk)
        before = f"The one before is valid for {self.overlap_hours:g} h more." if self.overlap_hours else ""
        return Plan(
            sentence=f"{self.field} of {self.connection} is another one.",
            consequences=(before or "The one before is forgotten at once.",),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        stored = await self._checked(desk)
        sealed = encrypt_secrets(desk.at_work().key_ring, stored.key, {self.field: self.value})
        until = desk.clock.now() + timedelta(hours=self.overlap_hours) if self.overlap_hours else None
        await desk.store.put_secret(
            stored.id, name=self.field, ciphertext=sealed[self.field], keep_previous_until=until
        )
        desk.at_work().connections.forget(stored.id)
        return Done(
            sentence=f"{self.field} of {stored.key} is set."
            + (f" The one before is valid until {until:%Y-%m-%d %H:%M} UTC." if until else ""),
            value={"field": self.field, "overlap_hours": self.overlap_hours or None, "previous_until": until},
            target=stored.key,
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        if self.overlap_hours:
            more = ["--overlap", f"{self.overlap_hours:g}", "--file", "PATH"]
            return ["connections", "rotate-secret", self.connection, self.field, *more]
        return ["connections", "set-secret", self.connection, self.field, "--file", "PATH"]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connections", self.connection, "settings"))

    async def _checked(self, desk: Desk) -> StoredConnection:
        stored = await desk.connection(self.connection)
        connector = desk.project(stored.connector).connector
        require_secret(connector, self.field)
        names = {one.field for one in await desk.store.secrets(stored.id, at=desk.clock.now())}
        validate_settings(connector, {**stored.settings, self.field: self.value}, stored_secrets=names)
        return stored


class Disconnect(ConnectionAct, frozen=True, kw_only=True):
    """Forget the authorisation of an account; nothing runs until it is authorised again."""

    name: ClassVar[str] = "connections.disconnect"
    title: ClassVar[str] = "Disconnect"
    is_grave: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        tokens = await self._tokens(desk)
        return Plan(
            sentence=f"The authorisation of {self.connection} is forgotten.",
            consequences=(
                "Nothing of it runs until it is authorised again; deliveries are still stored.",
                _asked(tokens, "it is forgotten"),
            ),
            is_possible=tokens.kept is not None,
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        tokens = await self._tokens(desk)
        token = await tokens.take()
        reason = "It was disconnected: connect it again on its settings page."
        await desk.store.pause_connection(
            tokens.connection_id, reason=reason, needs_attention=True, at=desk.clock.now()
        )
        came = await tokens.revoke(token)
        return Done(
            sentence=f"{self.connection} is disconnected{_told(came)}",
            value={"revoked": came.is_revoked, "problem": came.problem or None},
            target=self.connection,
            place=None if came.problem else self.about(),
            ok=not came.problem,
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["connections", "disconnect", self.connection, "--yes"]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connections", self.connection, "settings"))

    async def _tokens(self, desk: Desk) -> Tokens:
        tokens = (await desk.live(self.connection)).tokens
        if not isinstance(tokens, Tokens):
            raise UsageError(f"{self.connection} is not authorised by OAuth.")
        return tokens


def _asked(tokens: Tokens, kept: str) -> str:
    """What becomes of an authorisation at its provider."""
    if tokens.oauth.revoke_url is None:
        return "At the provider it stands until it is withdrawn there."
    return f"The provider is asked to withdraw it; where that fails, {kept} all the same."


def _told(came: Withdrawal) -> str:
    if came.problem:
        return f", but not at the provider: {came.problem} Withdraw the authorisation there."
    return ", and the provider has withdrawn the authorisation." if came.is_revoked else "."


class RemoveConnection(ConnectionAct, frozen=True, kw_only=True):
    """Remove a connection with everything that was ingested through it; an authorisation is withdrawn with it."""

    name: ClassVar[str] = "connections.remove"
    title: ClassVar[str] = "Remove the connection"
    is_grave: ClassVar[bool] = True

    expected: Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)] | None = None

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        count, tokens = await self._records(desk), await self._authorisation(desk)
        return Plan(
            sentence=f"{self.connection} goes, with {counted(count, 'live record')}, its runs, deliveries and secrets.",
            consequences=(
                "It cannot be undone.",
                "Its webhook URL answers 404 from then on.",
                *([f"Its authorisation is forgotten. {_asked(tokens, 'the connection goes')}"] if tokens else []),
            ),
            count=count,
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        count = await self._records(desk)
        require_expected(self.expected, count, "records")
        stored = await desk.connection(self.connection)
        tokens = await self._authorisation(desk)
        token = await tokens.take() if tokens else None
        await desk.store.remove_connection(stored.id)
        if desk.workshop is not None:
            desk.workshop.connections.forget(stored.id)
        came = await tokens.revoke(token) if tokens else Withdrawal(is_revoked=None)
        return Done(
            sentence=f"{stored.key} is removed{_told(came)}",
            value={
                "removed": stored.key, "records": count, "revoked": came.is_revoked, "problem": came.problem or None,
            },
            target=stored.key,
            place=None if came.problem else Place(()),
            ok=not came.problem,
        )  # fmt: skip

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["connections", "remove", self.connection, "--yes"]

    async def _authorisation(self, desk: Desk) -> Tokens | None:
        """The tokens that a provider may be asked to withdraw; a connection that cannot be brought to life, since its
        connector is not loaded or its secrets cannot be read, is removed all the same.
        """
        try:
            tokens = (await desk.live(self.connection)).tokens
        except HeadwaterError:
            return None
        return tokens if isinstance(tokens, Tokens) and tokens.kept is not None else None

    async def _records(self, desk: Desk) -> int:
        stored = await desk.connection(self.connection)
        return sum(live for key, _, live in await desk.store.populations() if key == stored.key)


def require_secret(connector: Connector, field: str) -> None:
    """`NotFoundError` for what is no secret field of a connector."""
    if field not in connector.secret_fields:
        hint = near_miss(field, connector.secret_fields) or f"It has {', '.join(sorted(connector.secret_fields))}."
        raise NotFoundError(f"The connector {connector.key} has no secret field `{field}`.", hint=hint)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
