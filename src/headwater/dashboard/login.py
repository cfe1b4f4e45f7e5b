"""`/login`, `/logout`, `/setup`, `/account`: coming in, going out, and what one may change of oneself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headwater.account import Account, Session
from headwater.api.access import Caller, refuse_cross_site
from headwater.api.csrf import form_of
from headwater.api.endpoint import entry_of
from headwater.api.problem import ProblemError
from headwater.api.query import Query
from headwater.api.session import address_of, forget_cookie, require_private, set_cookie, token_of
from headwater.dashboard.page import SECURITY_HEADERS
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.door import Door
from headwater.errors import HeadwaterError, NotFoundError, SignInError, UsageError

NEXT_CHARACTERS_MAX = 2_000


def routes(screens: Screens) -> list[Route]:
    """The pages of the door; none where nobody signs in here."""
    door = screens.door
    if door is None:
        return []
    made = _Pages(screens, door)
    return [
        Route("/login", made.unguarded(made.login), methods=["GET"]),
        Route("/login", made.unguarded(made.sign_in), methods=["POST"]),
        Route("/setup", made.unguarded(made.setup), methods=["GET"]),
        Route("/setup", made.unguarded(made.accept), methods=["POST"]),
        Route("/logout", made.unguarded(made.sign_out), methods=["POST"]),
        screens.route("/account", made.account),
        screens.route("/account/password", made.change_password, methods=["POST"]),
        screens.route("/account/sessions/end", made.end_sessions, methods=["POST"]),
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
            token, _ = await self._door.sign_in(
                email=email,
                password=form.get("password", ""),
                address=address_of(request),
                agent=request.headers.get("user-agent", ""),
                replaced=token_of(request),
            )
        except SignInError as error:
            values: dict[str, Any] = {"next": wanted, "email": email, "problem": _words(error), "has_account": True}
            status = 429 if error.retry_after_seconds else 401
            page = self._screens.render(request, "login.html", status=status, **values)
            if error.retry_after_seconds:
                page.headers["Retry-After"] = str(int(error.retry_after_seconds) + 1)
            return page
        answer = see_other(wanted)
        set_cookie(request, answer, token)
        return answer

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
        session, _ = await self._door.open_session(
            made,
            address=address_of(request),
            agent=request.headers.get("user-agent", ""),
            replaced=token_of(request),
        )
        answer = see_other("/")
        set_cookie(request, answer, session)
        return answer

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
        done = query.choice("done", ("password",))
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
        twin = {
            **entry_of(account, without=("password",)),
            "sessions": [_session(one, caller) for one in sessions],
        }
        values = {"account": account, "sessions": sessions, "problem": problem, "done": done}
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


def _require_same(form: dict[str, str]) -> None:
    if form.get("password", "") != form.get("again", ""):
        raise UsageError("The two passwords are not the same.")


def _words(error: HeadwaterError) -> str:
    seconds = error.retry_after_seconds if isinstance(error, SignInError) else None
    return f"{error} Try again in {int(seconds // 60) + 1} minutes." if seconds else str(error)


def _session(session: Session, caller: Caller) -> dict[str, object]:
    return {**entry_of(session, without=("account_id",)), "is_this": session.id == caller.session_id}
