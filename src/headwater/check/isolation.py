"""Imports a project's files as a check must: without network, and with whatever they raise turned into diagnostics."""

from __future__ import annotations

import contextlib
import inspect
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from headwater.check import code
from headwater.check.diagnostic import Findings
from headwater.errors import OutsideRouteError, near_miss
from headwater.project import Source

_LOOKUPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "create_server")

# Two checks at once would each put back the other's guard instead of what was there before.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of a project's file."""

    path: str
    line: int


def import_file(source: Source, path: str, found: Findings) -> ModuleType | None:
    """The module of a file, or None with the reason among the findings."""
    attempts: list[Place] = []
    try:
        with _without_network(lambda: attempts.append(_caller(source, path))):
            return source.import_file(path)
    except (Exception, SystemExit) as error:
        if not attempts:
            _explain(source, path, error, found)
        return None
    finally:
        for place in attempts:
            found.add(
                code.NETWORK_AT_IMPORT,
                place.path,
                place.line,
                "This line opens the network while the file is imported.",
                "move it into the route: a check runs without network.",
            )


def _explain(source: Source, path: str, error: BaseException, found: Findings) -> None:
    root = source.bundle.path
    place = _deepest(traceback.extract_tb(error.__traceback__), root) or Place(path=path, line=1)
    words = str(error).replace(f"{source.package}.", "")
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(root):
        broken = Path(error.filename).relative_to(root).as_posix()
        found.add(code.SYNTAX, broken, error.lineno or 1, f"This is not Python: {error.msg}.")
    elif isinstance(error, OutsideRouteError):
        found.add(
            code.SECRETS_AT_IMPORT,
            place.path,
            place.line,
            "This line needs a connection, and there is none while the file is imported.",
            "move it into the route.",
        )
    elif isinstance(error, ModuleNotFoundError):
        found.add(code.IMPORT_FAILS, place.path, place.line, f"{words}.", _missing_module(source, error))
    else:
        found.add(
            code.IMPORT_FAILS,
            place.path,
            place.line,
            f"The import raises {type(error).__name__}: {words}".rstrip(": ") + ".",
        )


def _missing_module(source: Source, error: ModuleNotFoundError) -> str:
    name = error.name or ""
    if name.startswith(source.package):
        wanted = name.removeprefix(f"{source.package}.")
        tail = wanted.rpartition(".")[2]
        same = [known for known in source.module_names() if known.rpartition(".")[2] == tail]
        if same:
            return f"did you mean `{same[0]}`? Count the dots: one is the file's own folder."
        return near_miss(wanted, source.module_names())
    if name.partition(".")[0] in ("src", "lib", source.bundle.path.name):
        return "import the project's own files relatively, such as `from ...lib.orders import order_record`."
    return f"install the package that has `{name}`."


def _deepest(frames: traceback.StackSummary, root: Path) -> Place | None:
    for frame in reversed(frames):
        if Path(frame.filename).is_relative_to(root):
            return Place(path=Path(frame.filename).relative_to(root).as_posix(), line=frame.lineno or 1)
    return None


def _caller(source: Source, path: str) -> Place:
    frame = inspect.currentframe()
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(source.bundle.path):
            return Place(path=file.relative_to(source.bundle.path).as_posix(), line=frame.f_lineno)
        frame = frame.f_back
    return Place(path=path, line=1)


@contextlib.contextmanager
def _without_network(note: Callable[[], None]) -> Iterator[None]:
    """Refuse new sockets and name look-ups to this thread alone: others, such as a running server's, keep theirs."""
    thread = threading.get_ident()

    def guarded(original: Callable[..., Any], *, fileno_at: int | None) -> Callable[..., Any]:
        def guard(*args: Any, **keywords: Any) -> Any:
            is_wrapper = fileno_at is not None and (
                keywords.get("fileno") is not None or (len(args) > fileno_at and args[fileno_at] is not None)
            )
            if threading.get_ident() == thread and not is_wrapper:
                note()
                raise OSError("there is no network while a project is checked")
            return original(*args, **keywords)

        return guard

    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_at_a_time)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        _patch(stack, socket.socket, "__init__", guarded(socket.socket.__init__, fileno_at=4))
        for name in _LOOKUPS:
            _patch(stack, socket, name, guarded(getattr(socket, name), fileno_at=None))
        yield


def _patch(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    original = getattr(owner, name)
    setattr(owner, name, value)
    stack.callback(setattr, owner, name, original)
