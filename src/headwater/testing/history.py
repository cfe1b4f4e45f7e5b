"""What happened in a simulated history, line by line, and its hash: two histories of one seed have the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

LINES_KEPT = 400  # the newest; the hash is of all
HASH_BYTES = 16


class History:
    """Lines as they come, with their instant, and the violations of what was promised."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._hash = blake2b(digest_size=HASH_BYTES)
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.count = 0
        self.violations: list[str] = []
        self.on_violation: Callable[[], None] = lambda: None
        self.on_line: Callable[[str], None] = lambda line: None  # noqa: ARG005

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        line = f"{self._seconds():12.6f} {who:9} {what}"
        self._hash.update(line.encode() + b"\n")
        self.lines.append(line)
        self.count += 1
        self.on_line(line)

    def violated(self, what: str) -> None:
        """Add a line that says which promise was broken."""
        self.note("VIOLATED", what)
        self.violations.append(f"{self._seconds():.3f} s: {what}")
        self.on_violation()

    @property
    def hash(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()
