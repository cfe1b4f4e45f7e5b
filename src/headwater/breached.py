"""Passwords known from breaches of other places, in a file beside us: no other party is asked about one.

The file is that of Have I Been Pwned's downloader: SHA-1 hashes in order, one a line, `HASH:COUNT`. It is tens of
gigabytes large, and is searched where it lies.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import BinaryIO

from headwater.errors import ConfigError

LINE_BYTES_MAX = 80
PLACES = 100  # of the file, looked at before it is believed

_LINE = re.compile(rb"([0-9A-Fa-f]{40})(?::\d+)?\r?\n?")


@dataclass(frozen=True)
class BreachedPasswords:
    """The passwords of one file."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> BreachedPasswords:
        """Those of a file that can be read and is in order, as far as `PLACES` of it show; else `ConfigError`."""
        found = cls(path)
        try:
            with path.open("rb") as file:
                size = _size(file)
                hashes = [found._hash(file, size * place // PLACES) for place in range(PLACES)]
        except OSError as error:
            raise found._unusable(f"cannot be read: {error.strerror}") from error
        told = [one for one in hashes if one is not None]
        if not told:
            raise found._unusable("is empty")
        if told != sorted(told):
            raise found._unusable("is not in the order of its hashes")
        return found

    def holds(self, password: str) -> bool:
        """Whether it is one of them; reads some forty lines. `ConfigError` where the file is usable no longer."""
        wanted = sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        try:
            with self.path.open("rb") as file:
                low, high = 0, _size(file)
                while low < high:  # the first line that is not before it begins in [low, high]
                    middle = (low + high) // 2
                    found = self._hash(file, middle)
                    if found is not None and found < wanted:
                        low = middle + 1
                    else:
                        high = middle
                return self._hash(file, low) == wanted
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error

    def _hash(self, file: BinaryIO, offset: int) -> bytes | None:
        """Of the first line that begins at `offset` or after it; None at the end."""
        file.seek(max(offset - 1, 0))
        if offset:
            file.readline(LINE_BYTES_MAX)
        line = file.readline(LINE_BYTES_MAX)
        match = _LINE.fullmatch(line)
        if line and match is None:
            raise self._unusable("has a line that is no SHA-1 hash with its count")
        return match[1].upper() if match else None

    def _unusable(self, why: str) -> ConfigError:
        hint = "The downloader of Have I Been Pwned makes a usable one, of SHA-1 hashes in one file."
        return ConfigError(f"The file of breached passwords {self.path} {why}.", hint=hint)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)
