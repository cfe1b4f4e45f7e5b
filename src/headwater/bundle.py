"""The files of a connector project as they were at one instant, and the hash that names them.

A project is loaded from this copy in memory, never from the disk a second time: what was hashed is what runs, and an
edit to the folder cannot reach a version that is already running.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from headwater.errors import CheckFailedError

FILES_MAX = 5_000
BYTES_MAX = 32 * 1024 * 1024  # of all files together
FILE_BYTES_MAX = 8 * 1024 * 1024
NAME_BYTES_MAX = 512  # of a file's path below the project's folder
DEPTH_MAX = 32
HASH_BYTES = 16

_SKIPPED = frozenset({"__pycache__", "node_modules", "tests", "venv"})


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file that a project may not hold."""

    path: str  # below the project's folder, "/" between the parts
    reason: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A project's files, without its tests, hidden files and caches."""

    path: Path  # the folder; of a bundle from the store, a name that leads to no file
    files: Mapping[str, bytes]  # by path below the folder, "/" between the parts, sorted
    content_hash: str
    refused: tuple[Refused, ...] = ()  # files left out, for which `read` would have raised


def read(path: Path) -> Bundle:
    """The files of the project at `path`; `CheckFailedError` where one may not be part of a project."""
    bundle = survey(path)
    if bundle.refused:
        first = bundle.refused[0]
        raise CheckFailedError(f"{path / first.path}: {first.reason}")
    return bundle


def survey(path: Path) -> Bundle:
    """The files of the project at `path`, with those that it may not hold named instead of read."""
    root = path.resolve()
    if not root.is_dir():
        raise CheckFailedError(f"There is no folder {path}.", hint="`headwater init` makes a new project.")
    files: dict[str, bytes] = {}
    refused: list[Refused] = []
    bytes_read = 0
    for name, entry in _entries(root, PurePosixPath(), 0):
        try:
            content = _content(root, entry, BYTES_MAX - bytes_read, len(files))
        except OSError as error:
            refused.append(Refused(path=name, reason=f"It cannot be read: {error.strerror or error}."))
        except _RefusedError as error:
            refused.append(Refused(path=name, reason=str(error)))
            if error.is_final:
                break
        else:
            bytes_read += len(content)
            files[name] = content
    for problem in name_problems(files):
        refused.append(problem)
        del files[problem.path]
    return _made(root, files, tuple(refused))


def stored(files: Mapping[str, bytes]) -> Bundle:
    """The bundle of files that came from elsewhere; `CheckFailedError` for any that `survey` would not have taken."""
    problem = next(iter(name_problems(files)), None) or _excess(files)
    if problem is not None:
        raise CheckFailedError(f"{problem.path!r}: {problem.reason}")
    made = _made(Path(), files)
    return Bundle(path=Path(f"bundle:{made.content_hash}"), files=made.files, content_hash=made.content_hash)


def name_problems(names: Iterable[str]) -> list[Refused]:
    """What is wrong with the paths of a project's files: none may lead out of its folder, nor be two files somewhere.

    Where the case of letters does not count, or how an accent is written, two names would be one file.
    """
    problems = []
    spellings: dict[str, str] = {}
    taken: set[str] = set()  # names of files, folded
    for name in sorted(names):
        reason = _name_problem(name)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            folded = unicodedata.normalize("NFC", part).casefold()
            if spellings.setdefault(folded, part) != part or (folded in taken):
                reason = reason or f"Its name and `{spellings[folded]}` are the same on some machines."
        if reason:
            problems.append(Refused(path=name, reason=reason))
        else:
            taken.add(unicodedata.normalize("NFC", name).casefold())
    return problems


def _made(path: Path, files: Mapping[str, bytes], refused: tuple[Refused, ...] = ()) -> Bundle:
    ordered = dict(sorted(files.items()))
    return Bundle(path=path, files=ordered, content_hash=_hash(ordered), refused=refused)


def _name_problem(name: str) -> str | None:
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name:
        return "Its name has a character that is no part of a file's name everywhere."
    if len(name.encode()) > NAME_BYTES_MAX or len(parts) > DEPTH_MAX + 1:
        return f"Its name is longer than {NAME_BYTES_MAX} bytes, or nested deeper than {DEPTH_MAX} folders."
    if any(part in ("", ".", "..") for part in parts):
        return "Its name leads out of the project's folder."
    if any(_is_skipped(part) for part in parts):
        return "It is no part of a project: hidden files, tests and caches are left out."
    return None


def _excess(files: Mapping[str, bytes]) -> Refused | None:
    if len(files) > FILES_MAX:
        return Refused(path="", reason=f"The project has more than {FILES_MAX} files.")
    if sum(map(len, files.values())) > BYTES_MAX:
        return Refused(path="", reason=f"The project is larger than {BYTES_MAX} bytes.")
    large = next((name for name, content in files.items() if len(content) > FILE_BYTES_MAX), None)
    if large is None:
        return None
    return Refused(path=large, reason=f"The file is larger than {FILE_BYTES_MAX} bytes.")


def _is_skipped(part: str) -> bool:
    return part.startswith(".") or part in _SKIPPED or part.endswith(".pyc")


class _RefusedError(Exception):
    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


def _entries(folder: Path, below: PurePosixPath, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file and link below `folder`, in an order that does not depend on the file system."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if _is_skipped(entry.name):
            continue
        name = below / entry.name
        if entry.is_dir(follow_symlinks=False) and depth < DEPTH_MAX:
            yield from _entries(folder / entry.name, name, depth + 1)
        else:
            yield str(name), entry


def _content(root: Path, entry: os.DirEntry[str], bytes_left: int, count: int) -> bytes:
    path = Path(entry.path)
    if entry.is_dir(follow_symlinks=False):
        raise _RefusedError(f"Folders are nested deeper than {DEPTH_MAX}.")
    if entry.is_symlink():
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise _RefusedError("The link leads out of the project's folder.")
        if path.is_dir():
            raise _RefusedError("A link to a folder cannot be part of a project.")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("It is no regular file.")
    if count >= FILES_MAX:
        raise _RefusedError(f"The project has more than {FILES_MAX} files.", is_final=True)
    if status.st_size > FILE_BYTES_MAX:
        raise _RefusedError(f"The file is larger than {FILE_BYTES_MAX} bytes.")
    if status.st_size > bytes_left:
        raise _RefusedError(f"The project is larger than {BYTES_MAX} bytes.", is_final=True)
    return path.read_bytes()


def _hash(files: Mapping[str, bytes]) -> str:
    digest = blake2b(digest_size=HASH_BYTES)
    for name, content in files.items():
        encoded = name.encode("utf-8", "surrogateescape")
        # Lengths stand before the parts, so that no two sets of files give the same bytes.
        digest.update(b"%d:%d:" % (len(encoded), len(content)))
        digest.update(encoded)
        digest.update(content)
    return digest.hexdigest()
