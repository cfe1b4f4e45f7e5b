"""Bytes appended to a file so that a crash at any instant loses and repeats nothing.

Beside the file stands a small note: how many bytes are good, and the position they reach. Bytes first, then the note,
each made durable; whoever comes back cuts the file to the note and goes on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec

from headwater.errors import UsageError

NOTE_BYTES_MAX = 1024 * 1024


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a file."""

    request: Mapping[str, str]  # what the file is for: another request may not go on with it
    position: str
    bytes: int


class AppendedFile:
    """A file that knows its position.

    With `continues` the file is written in its place and keeps its note, so that a later export goes on; without, it
    is written beside its place and moved there when it is complete.
    """

    def __init__(self, path: Path, *, request: Mapping[str, str], continues: bool) -> None:
        self._path = path
        self._request = dict(request)
        self._continues = continues
        self._work = path if continues else path.with_name(path.name + ".partial")
        self._note = path.with_name(path.name + (".position" if continues else ".partial.position"))
        self._file: IO[bytes] | None = None

    def open(self) -> str | None:
        """Take the file, cut it to what is good, and tell its position; None when it is new.

        Raises `UsageError` when somebody else writes it, or it holds something else.
        """
        note = self._read_note()
        if note is None and self._continues and self._work.exists() and self._work.stat().st_size:
            raise UsageError(f"{self._path} exists, and no export wrote it.", hint="Give another file.")
        try:
            file = self._work.open("r+b" if self._work.exists() else "w+b")
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}.") from error
        try:
            lock(file, self._path)
            size = file.seek(0, os.SEEK_END)
            good = note.bytes if note else 0
            if size < good:
                raise UsageError(
                    f"{self._work} is shorter than its note says.",
                    hint=f"Remove it and {self._note.name} to begin anew.",
                )
            file.truncate(good)
            file.seek(good)
        except BaseException:
            file.close()
            raise
        self._file = file
        return note.position if note else None

    def append(self, data: bytes, *, position: str) -> None:
        """Make the bytes durable, and then the position."""
        assert self._file is not None, "the file was opened"
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())
        note = Note(request=self._request, position=position, bytes=self._file.tell())
        replace_durably(self._note, msgspec.json.encode(note))

    @property
    def is_empty(self) -> bool:
        """Nothing was written yet."""
        assert self._file is not None, "the file was opened"
        return self._file.tell() == 0

    def finish(self, *, empty: bytes = b"") -> None:
        """Put the complete file in its place; one without any row holds `empty`, unless it is gone on with later."""
        assert self._file is not None, "the file was opened"
        if self.is_empty and not self._continues:
            self._file.write(empty)
        self._file.flush()
        os.fsync(self._file.fileno())
        if not self._continues:
            self._work.replace(self._path)
            self._note.unlink(missing_ok=True)
        sync_directory(self._path.parent)

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_note(self) -> Note | None:
        note = read_note(self._note)
        # The note of a file that is gone speaks of nothing.
        if note is None or not self._work.exists():
            return None
        if dict(note.request) != self._request:
            raise UsageError(
                f"{self._work} was begun by another export.",
                hint=f"Repeat that one, or remove {self._work.name} and {self._note.name}, or give another file.",
            )
        return note


def lock(file: IO[bytes], path: Path) -> None:
    """Hold a file until it is closed; `UsageError` while somebody else does. `path` is what both want to write."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UsageError(f"Another export writes {path} now.", hint="Wait for it to end.") from error


def read_note(path: Path) -> Note | None:
    """The note at a path, if there is one."""
    try:
        return msgspec.json.decode(path.read_bytes()[:NOTE_BYTES_MAX], type=Note)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError, OSError) as error:
        raise UsageError(
            f"{path} is not readable as the note of an export.", hint="Remove it to begin anew."
        ) from error


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a small file as a whole: readers, and a crash, meet the old or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
