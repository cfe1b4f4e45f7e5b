"""The write-ahead log that a dead process left: made durable before it is believed.

An fsync that failed leaves its pages in the page cache, marked as written. A process that dies then leaves a commit
there that failed, was answered to nobody, and is not on the disk; the next process would find it, build on it, and lose
with it at a power cut what it acknowledges itself. So the log is written anew, as it reads, and synced: at any instant
of that the disk holds of each page what it held before, or what is read.
"""

from __future__ import annotations

from pathlib import Path

import apsw

CHUNK_BYTES = 64 * 1024  # SQLite writes less than 128 KiB at once


def renew(path: str) -> None:
    """Write the log of `path` anew, unless somebody has the file open: then its good end is known, and kept.

    Raises `apsw.Error`.
    """
    log = Path(f"{path}-wal")
    if not log.exists() or not log.stat().st_size:
        return
    db = apsw.Connection(path)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # nothing of the log goes into the file meanwhile
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # takes the lock
        if log.exists():  # SQLite removes that of an empty file
            _write_anew(log)
    except apsw.BusyError:
        return
    finally:
        db.close()


def _write_anew(log: Path) -> None:
    file = apsw.VFSFile("", str(log), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        for offset in range(0, log.stat().st_size, CHUNK_BYTES):
            size = min(CHUNK_BYTES, file.xFileSize() - offset)
            file.xWrite(file.xRead(size, offset), offset)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()
