"""`/login`, `/logout`, `/setup`, `/account`: coming in, going out, and what one may change of oneself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headwater.account import NEVER_SHOWN, Account, Session
from headwater.api.access import Caller, refuse_cross_site
from headwater.api.csrf import form_of
from headwater.api.endpoint import entry_of
from headwater.api.problem import ProblemError
from headwater.api.query import Query
from headwater.api.session import address_of, forget_cookie, require_private, set_cookie, token_of
from headwater.dashboard.page import SECURITY_HEADERS
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.door import CodeAsked, Door
from headwater.errors import ConflictError, HeadwaterError, NotFoundError, SignInError, UsageError

NEXT_CHARACTERS_MAX = 2_000
DONE = {
    "password": "The password is another one now; every other session has ended.",
    "factor": "From now on a login asks for a code, too; every other session has ended.",
    "off": "A login asks for the password alone.",
}


def routes(screens: Screens) -> list[Route]:
    """The pages of the door; none where nobody signs in here."""
    door = screens.door
    if door is None:
        return []
    made = _Pages(screens, door)
    return [
        Route("/login", made.unguarded(made.login), methods=["GET"]),
        Route("/login", made.unguarded(made.sign_in), methods=["POST"]),
        Route("/login/code", made.unguarded(made.sign_in_by_code), methods=["POST"]),
        Route("/setup", made.unguarded(made.setup), methods=["GET"]),
        Route("/setup", made.unguarded(made.accept), methods=["POST"]),
        Route("/logout", made.unguarded(made.sign_out), methods=["POST"]),
        screens.route("/account", made.account, scope=None),
        screens.route("/account/password", made.change_password, methods=["POST"], scope=None),
        screens.route("/account/factor", made.begin_factor, methods=["POST"], scope=None),
        screens.route("/account/factor/confirm", made.confirm_factor, methods=["POST"], scope=None),
        screens.route("/account/factor/codes", made.renew_codes, methods=["POST"]),
        screens.route("/account/factor/off", made.turn_factor_off, methods=["POST"]),
        screens.route("/account/sessions/end", made.end_sessions, methods=["POST"], scope=None),
    ]


def safe_next(text: str) -> str:
    """A page of ours to go on to; the overview for anything that a browser would take for another site's."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and len(text) <= NEXT_CHARACTERS_MAX
    return text if is_ours and text.isprintable() and "\\" not in text else "/"


class _Pages:
    """The handlers, over one door."""

    def __init__(self, screens: Screens, door: Door) -> None:
        self._screens = screens
        self._door = door

    def unguarded(self, show: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A handler for whoever comes, save by way of another site."""

        async def answer(request: Request) -> Response:
            try:
                refuse_cross_site(request)
                return await show(request)
            except HeadwaterError as error:
                return self._screens.refusal(request, error)

        return answer

    async def login(self, request: Request) -> Response:
        """The form."""
        query = Query(request)
        wanted = safe_next(query.text("next") or "/")
        finish(query)
        token = token_of(request)
        if token and await self._door.who(token, is_act=False):
            return see_other(wanted)
        has_account = await self._door.store.has_account()
        values: dict[str, Any] = {"next": wanted, "email": "", "problem": "", "has_account": has_account}
        return self._screens.render(request, "login.html", **values)

    async def sign_in(self, request: Request) -> Response:
        """A login; the form again where it is refused, with the reason."""
        require_private(request)
        form = await form_of(request)
        wanted = safe_next(form.get("next", "/"))
        email = form.get("email", "")
        try:
            found = await self._door.sign_in(email=email, password=form.get("password", ""), **_browser(request))
        except SignInError as error:
            values = {"next": wanted, "email": email, "problem": _words(error), "has_account": True}
            return self._refused(request, "login.html", error, values)
        if isinstance(found, CodeAsked):
            return self._screens.render(request, "code.html", next=wanted, ticket=found.ticket, problem="")
        return _signed_in(request, found[0], wanted)

    async def sign_in_by_code(self, request: Request) -> Response:
        """The second half of a login; the form again where the code is refused."""
        require_private(request)
        form = await form_of(request)
        wanted, ticket = safe_next(form.get("next", "/")), form.get("ticket", "")
        try:
            token, _ = await self._door.sign_in_by_code(ticket, form.get("code", ""), **_browser(request))
        except SignInError as error:
            values = {"next": wanted, "ticket": ticket, "problem": _words(error)}
            return self._refused(request, "code.html", error, values)
        return _signed_in(request, token, wanted)

    def _refused(self, request: Request, template: str, error: SignInError, values: Mapping[str, Any]) -> Response:
        status = 429 if error.retry_after_seconds else 401
        page = self._screens.render(request, template, status=status, **values)
        if error.retry_after_seconds:
            page.headers["Retry-After"] = str(int(error.retry_after_seconds) + 1)
        return page

    async def setup(self, request: Request) -> Response:
        """The page that an invitation leads to."""
        query = Query(request)
        token = query.text("token") or ""
        finish(query)
        _, account = await self._invited(token)
        return self._setup_page(request, token, account)

    async def accept(self, request: Request) -> Response:
        """The password of the invited, or the first admin; then they are signed in."""
        require_private(request)
        form = await form_of(request)
        token, email, name = form.get("token", ""), form.get("email", ""), form.get("name", "")
        _, account = await self._invited(token)
        try:
            _require_same(form)
            made = await self._door.accept(token, email=email, name=name, password=form.get("password", ""))
        except UsageError as error:
            return self._setup_page(request, token, account, problem=str(error), email=email, name=name, status=422)
        if made.factor_at is not None:  # a link replaces a password that was forgotten, not the second factor
            return see_other("/login")
        session, _ = await self._door.open_session(made, **_browser(request))
        return _signed_in(request, session, "/")

    async def sign_out(self, request: Request) -> Response:
        """The session ends here and in the store."""
        token = token_of(request)
        if token and await self._door.who(token, is_act=False):
            caller = await self._screens.guard(request)
            account = await self._door.named(caller.name)
            await self._door.end_sessions(account, actor=caller.name, session_id=caller.session_id)
        answer = see_other("/login")
        forget_cookie(request, answer)
        return answer

    async def account(self, request: Request, caller: Caller) -> Answer:
        """Oneself: name, role, password, sessions."""
        query = Query(request)
        done = query.choice("done", tuple(DONE))
        finish(query)
        return await self._account(caller, done=done or "")

    async def change_password(self, request: Request, caller: Caller) -> Response:
        """Another password; every other session ends."""
        account, form = await self._self(caller), await form_of(request)
        token = token_of(request)
        assert token is not None, "a session has its token"
        try:
            _require_same(form)
            await self._door.change_password(
                account,
                token,
                old=form.get("current", ""),
                new=form.get("password", ""),
                address=address_of(request),
            )
        except (UsageError, SignInError) as error:
            found = await self._account(caller, problem=_words(error))
            status = 429 if isinstance(error, SignInError) else 422
            return self._screens.render(request, found.template, caller=caller, status=status, **found.values)
        return see_other("/account?done=password")

    async def begin_factor(self, request: Request, caller: Caller) -> Response:
        """A second factor for one's app to take over."""
        account, form = await self._self(caller), await form_of(request)

        async def begin() -> dict[str, Any]:
            words = {"password": form.get("current", ""), "address": address_of(request)}
            return {"new_factor": await self._door.begin_factor(account, **words)}

        return await self._tried(request, caller, begin)

    async def confirm_factor(self, request: Request, caller: Caller) -> Response:
        """From now on it is asked for; the recovery codes are shown, and nothing shows them again."""
        account, form, token = await self._self(caller), await form_of(request), token_of(request)
        assert token is not None, "a session has its token"

        async def confirm() -> dict[str, Any]:
            codes = await self._door.confirm_factor(account, token, code=form.get("code", ""))
            return {"codes": codes, "done": "factor"}

        return await self._tried(request, caller, confirm)

    async def renew_codes(self, request: Request, caller: Caller) -> Response:
        """New recovery codes."""
        account, form = await self._self(caller), await form_of(request)

        async def renew() -> dict[str, Any]:
            words = {"code": form.get("code", ""), "address": address_of(request)}
            return {"codes": await self._door.renew_recovery_codes(account, **words)}

        return await self._tried(request, caller, renew)

    async def turn_factor_off(self, request: Request, caller: Caller) -> Response:
        """No second factor any more."""
        account, form = await self._self(caller), await form_of(request)

        async def turn_off() -> dict[str, Any]:
            words = {"password": form.get("current", ""), "code": form.get("code", "")}
            await self._door.turn_factor_off(account, **words, address=address_of(request))
            return {"done": "off"}

        return await self._tried(request, caller, turn_off)

    async def _tried(self, request: Request, caller: Caller, act: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
        """The page of oneself with what came of an act, or with why it was refused."""
        status, more = 200, {}
        try:
            more = await act()
        except (UsageError, ConflictError, SignInError) as error:
            status, more = 429 if isinstance(error, SignInError) else 422, {"problem": _words(error)}
        found = await self._account(caller)
        return self._screens.render(request, found.template, caller=caller, status=status, **{**found.values, **more})

    async def end_sessions(self, request: Request, caller: Caller) -> Response:
        """End one of one's own sessions, or all of them."""
        account, form = await self._self(caller), await form_of(request)
        which = form.get("session", "")
        if which and not (which.isascii() and which.isdigit() and len(which) < 19):
            raise ProblemError(404, "There is no such session.", code="request.not_found")
        await self._door.end_sessions(account, actor=caller.name, session_id=int(which) if which else None)
        return see_other("/account" if which and int(which) != caller.session_id else "/login")

    async def _account(self, caller: Caller, *, problem: str = "", done: str = "") -> Answer:
        account = await self._self(caller)
        sessions = await self._door.sessions(account.id)
        left = await self._door.store.recovery_codes_left(account.id)
        twin = {
            **entry_of(account, without=NEVER_SHOWN),
            "recovery_codes_left": left,
            "sessions": [_session(one, caller) for one in sessions],
        }
        values = {
            "account": account, "sessions": sessions, "problem": problem, "done": done, "told": DONE, "codes": (),
            "new_factor": None, "codes_left": left, "factor_required": self._door.factor_required,
        }  # fmt: skip
        return Answer(template="account.html", values=values, twin=twin)

    async def _self(self, caller: Caller) -> Account:
        if not caller.is_person:
            raise NotFoundError("Nobody is signed in.", hint="This page is for somebody who is.")
        return await self._door.named(caller.name)

    async def _invited(self, token: str) -> tuple[object, Account | None]:
        found = await self._door.invitation(token)
        if found is None:
            raise NotFoundError(
                "This link was used before, or has expired.",
                hint="Ask an admin for another one; for the first admin, `headwater serve` prints one at its start.",
            )
        return found

    def _setup_page(
        self,
        request: Request,
        token: str,
        account: Account | None,
        *,
        problem: str = "",
        email: str = "",
        name: str = "",
        status: int = 200,
    ) -> Response:
        values: dict[str, Any] = {"token": token, "account": account, "problem": problem, "email": email, "name": name}
        return self._screens.render(request, "setup.html", status=status, **values)


def see_other(url: str) -> Response:
    """On to another page, by GET."""
    return RedirectResponse(url, status_code=303, headers=dict(SECURITY_HEADERS))


def _browser(request: Request) -> dict[str, Any]:
    """Where a login comes from, and the session that it replaces."""
    agent = request.headers.get("user-agent", "")
    return {"address": address_of(request), "agent": agent, "replaced": token_of(request)}


def _signed_in(request: Request, token: str, wanted: str) -> Response:
    answer = see_other(wanted)
    set_cookie(request, answer, token)
    return answer


def _require_same(form: dict[str, str]) -> None:
    if form.get("password", "") != form.get("again", ""):
        raise UsageError("The two passwords are not the same.")


def _words(error: HeadwaterError) -> str:
    seconds = error.retry_after_seconds if isinstance(error, SignInError) else None
    return f"{error} Try again in {int(seconds // 60) + 1} minutes." if seconds else str(error)


def _session(session: Session, caller: Caller) -> dict[str, object]:
    return {**entry_of(session, without=("account_id",)), "is_this": session.id == caller.session_id}
