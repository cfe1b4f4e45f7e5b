"""A disk that keeps apart what is synced and what is not, and says what of it a power cut may leave.

    SQLite ── RecordingVFS ──> the real files, which are the page cache's view
                  └── trace of acts ──> Disk: per file what is durable, and the acts since its last sync
                                          └── image(chance): what a disk may hold after a cut here

Of what was not synced any part may be there: none, all, the beginning, any acts without the others, any sectors of
each. A file may have grown without its content, which is then zeros or rubbish. A name may be made or removed or not,
until its folder is synced: by the first sync of a new log or journal, as SQLite's own VFS does it. Bytes beside those
that are written stay as they are, which SQLite asks of a disk ("powersafe overwrite"). A sync that fails leaves what it
was for in the page cache, marked as written, and has written any part of it: as on Linux.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import apsw

SECTORS = (512, 4096)
FILE_HEADER_BYTES, LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 100, 32, 24
BASE = "unix"
# Files of these kinds have their folder synced with their own first sync.
SYNCED_WITH_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
CLASSES = (
    "file: created", "file: write", "file: first page", "file: truncate", "file: sync",
    "journal: created", "journal: write", "journal: sync", "journal: deleted",
    "log: created", "log: header", "log: frame header", "log: frame", "log: commit frame header", "log: commit frame",
    "log: frame written anew", "log: sync", "log: deleted",
)  # fmt: skip


class Act(NamedTuple):
    """One act on a file, or a word of the workload about what it has come to."""

    what: (
        str  # create, write, truncate, sync, sync failed, delete; of the workload: begin, commit, or a word of its own
    )
    file: str = ""
    kind: str = ""  # one of CLASSES; "" of the workload's words
    offset: int = 0  # of a write; the size of a truncation
    data: bytes = b""
    note: object = None


class RecordingVFS(apsw.VFS):
    """The default VFS until it is unregistered: appends every act to `trace`; `fails` says what an act fails with."""

    def __init__(self, name: str, trace: list[Act], fails: Callable[[Act], apsw.Error | None]) -> None:
        self.trace = trace
        self._fails = fails
        super().__init__(name, BASE, makedefault=True)

    def xOpen(self, name, flags):
        return RecordingFile(self, name, flags) if name else apsw.VFSFile(BASE, name, flags)

    def xDelete(self, name, sync_folder):
        file = Path(name).name
        with self.doing(Act("delete", file, f"{part_of(file)}: deleted", note=sync_folder)):
            super().xDelete(name, sync_folder)

    @contextlib.contextmanager
    def doing(self, act: Act) -> Iterator[None]:
        """Record what the body does, unless it fails."""
        error = self._fails(act)
        if error is not None:
            if act.what == "sync":
                self.trace.append(act._replace(what="sync failed"))
            raise error
        yield
        self.trace.append(act)


class RecordingFile(apsw.VFSFile):
    """A real file whose changes are recorded."""

    def __init__(self, disk: RecordingVFS, name, flags) -> None:
        path = Path(name if isinstance(name, str) else name.filename())
        self.disk, self.file, self.part = disk, path.name, part_of(path.name)
        self.is_commit, self.end = False, 0
        if path.exists():
            super().__init__(BASE, name, flags)
            return
        with disk.doing(Act("create", self.file, f"{self.part}: created", note=bool(flags[0] & SYNCED_WITH_FOLDER))):
            super().__init__(BASE, name, flags)

    def xWrite(self, data, offset):
        kind = f"{self.part}: {self._kind(data, offset)}"
        with self.disk.doing(Act("write", self.file, kind, offset, bytes(data))):
            super().xWrite(data, offset)

    def xTruncate(self, size):
        with self.disk.doing(Act("truncate", self.file, f"{self.part}: truncate", size)):
            super().xTruncate(size)

    def xSync(self, flags):
        with self.disk.doing(Act("sync", self.file, f"{self.part}: sync")):
            super().xSync(flags)

    def _kind(self, data, offset: int) -> str:
        if self.part != "log":
            return "first page" if self.part == "file" and offset == 0 else "write"
        if offset == 0:
            self.end = LOG_HEADER_BYTES
            return "header"
        if len(data) == FRAME_HEADER_BYTES:
            anew, self.end = offset < self.end, max(self.end, offset)
            self.is_commit = data[4:8] != bytes(4)  # the size of the file after the commit
            return "frame written anew" if anew else f"{self._frame} header"
        return self._frame

    @property
    def _frame(self) -> str:
        return "commit frame" if self.is_commit else "frame"


def part_of(file: str) -> str:
    """Which part of a store the file is."""
    return "log" if file.endswith("-wal") else "journal" if file.endswith("-journal") else "file"


@dataclass
class Content:
    """A file as the disk has it, as the page cache has it, and what was done since the last sync."""

    durable: bytearray = field(default_factory=bytearray)
    cached: bytearray = field(default_factory=bytearray)
    pending: list[Act] = field(default_factory=list)
    is_new: bool = False  # its folder is synced with its first sync


class Disk:
    """What is durable after each act; copied from its start by `image` and `cache`."""

    def __init__(self, files: Mapping[str, bytes] = {}) -> None:
        self.names = {name: Content(bytearray(data), bytearray(data)) for name, data in files.items()}
        self.durable_names = dict(self.names)
        self.pending_names: list[tuple[str, Content | None]] = []

    def apply(self, act: Act, chance: random.Random) -> None:
        """Do what the act did; `chance` says what a failed sync wrote all the same."""
        if act.what == "create":
            self._name(act.file, Content(is_new=bool(act.note)))
        elif act.what == "delete":
            self._name(act.file, None)
            if act.note:
                self._sync_folder()
        elif act.what in ("write", "truncate"):
            content = self.names[act.file]
            content.pending.append(act)
            change(content.cached, act)
        elif act.what == "sync":
            content = self.names[act.file]
            for one in content.pending:
                change(content.durable, one)
            content.pending.clear()
            if content.is_new:
                content.is_new = False
                self._sync_folder()
        elif act.what == "sync failed":
            content = self.names[act.file]
            content.durable = kept(content, chance)
            content.pending.clear()

    def image(self, chance: random.Random) -> dict[str, bytes]:
        """The files after a power cut here."""
        names = dict(self.durable_names)
        share = chance.choice((0.0, 0.5, 1.0))
        names |= {name: content for name, content in self.pending_names if chance.random() < share}
        return {name: bytes(kept(content, chance)) for name, content in names.items() if content is not None}

    def cache(self) -> dict[str, bytes]:
        """The files after the death of the process here, the machine living on."""
        return {name: bytes(content.cached) for name, content in self.names.items()}

    def copied(self) -> Disk:
        """The same, apart."""
        twins: dict[int, Content] = {}

        def twin(content: Content | None) -> Content | None:
            if content is None:
                return None
            return twins.setdefault(
                id(content),
                Content(bytearray(content.durable), bytearray(content.cached), list(content.pending), content.is_new),
            )

        other = Disk()
        other.names = {name: twin(content) for name, content in self.names.items()}
        other.durable_names = {name: twin(content) for name, content in self.durable_names.items()}
        other.pending_names = [(name, twin(content)) for name, content in self.pending_names]
        return other

    def _name(self, name: str, content: Content | None) -> None:
        self.pending_names.append((name, content))
        if content is None:
            self.names.pop(name, None)
        else:
            self.names[name] = content

    def _sync_folder(self) -> None:
        self.durable_names = dict(self.names)
        self.pending_names.clear()


def change(data: bytearray, act: Act) -> None:
    """Write or truncate."""
    if act.what == "truncate":
        del data[act.offset :]
        data.extend(bytes(act.offset - len(data)))
        return
    data.extend(bytes(max(0, act.offset - len(data))))
    data[act.offset : act.offset + len(act.data)] = act.data


def kept(content: Content, chance: random.Random) -> bytearray:
    """What may be on disk of a file: its durable content and any part of what was done since."""
    data = bytearray(content.durable)
    how = chance.choice(("none", "all", "beginning", "some", "sectors"))
    sector = chance.choice(SECTORS)
    share = chance.random()
    acts = content.pending
    if how == "none":
        acts = []
    elif how == "beginning":
        acts = acts[: chance.randint(0, len(acts))]
        if acts:
            acts = [*acts[:-1], *torn(acts[-1], sector, share, chance)]
    elif how == "some":
        acts = [act for act in acts if chance.random() < share]
    elif how == "sectors":
        acts = [part for act in acts for part in torn(act, sector, share, chance)]
    for act in acts:
        change(data, act)
    grown = len(content.cached) - len(data)
    if grown > 0 and chance.random() < 0.3:
        data.extend(chance.choice((bytes(grown), chance.randbytes(grown))))
    return data


def torn(act: Act, sector: int, share: float, chance: random.Random) -> list[Act]:
    """The sectors of a write that reached the disk."""
    if act.what != "write":
        return [act] if chance.random() < share else []
    parts, at, end = [], act.offset, act.offset + len(act.data)
    while at < end:
        until = min(end, (at // sector + 1) * sector)
        if chance.random() < share:
            parts.append(act._replace(offset=at, data=act.data[at - act.offset : until - act.offset]))
        at = until
    return parts
