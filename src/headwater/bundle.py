"""The files of a connector project as they were at one instant, and the hash that names them.

A project is loaded from this copy in memory, never from the disk a second time: what was hashed is what runs, and an
edit to the folder cannot reach a version that is already running.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from headwater.errors import CheckFailedError

FILES_MAX = 5_000
BYTES_MAX = 64 * 1024 * 1024
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

    path: Path
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
    ordered = dict(sorted(files.items()))
    return Bundle(path=root, files=ordered, content_hash=_hash(ordered), refused=tuple(refused))


class _RefusedError(Exception):
    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


def _entries(folder: Path, below: PurePosixPath, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file and link below `folder`, in an order that does not depend on the file system."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED or entry.name.endswith(".pyc"):
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
