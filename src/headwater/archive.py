"""A bundle as bytes, as it is sent and stored: packed, and unpacked with every limit kept before memory is spent.

An archive is a magic word and deflated names and contents. The form has no links, modes, owners or times, so that what
a bundle may not hold cannot be said in it; names are judged as those of a folder are.

    "HWB1" deflate( for each file: bytes of its name, bytes of its content (4 each, big-endian), name, content )
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from headwater.bundle import BYTES_MAX, FILES_MAX, NAME_BYTES_MAX, Bundle, stored
from headwater.errors import CheckFailedError

ARCHIVE_BYTES_MAX = 16 * 1024 * 1024  # of an archive, deflated
MAGIC = b"HWB1"

_FRAME = struct.Struct(">II")
_PLAIN_BYTES_MAX = BYTES_MAX + FILES_MAX * (NAME_BYTES_MAX + _FRAME.size)
_LEVEL = 6


def pack(bundle: Bundle) -> bytes:
    """The archive of a bundle, the same for the same files; `CheckFailedError` where it is larger than its limit."""
    plain = bytearray()
    for name, content in bundle.files.items():
        encoded = name.encode()
        plain += _FRAME.pack(len(encoded), len(content)) + encoded + content
    archive = MAGIC + zlib.compress(plain, _LEVEL)
    if len(archive) > ARCHIVE_BYTES_MAX:
        raise CheckFailedError(
            f"The project is larger than {ARCHIVE_BYTES_MAX} bytes when it is compressed.",
            hint="Keep data out of the project's folder.",
        )
    return archive


def unpack(archive: bytes, *, content_hash: str) -> Bundle:
    """The bundle of that name in an archive; `CheckFailedError` for anything else, and never more memory than a bundle
    may take.
    """
    if len(archive) > ARCHIVE_BYTES_MAX:
        raise CheckFailedError(f"The archive is larger than {ARCHIVE_BYTES_MAX} bytes.")
    if not archive.startswith(MAGIC):
        raise CheckFailedError("This is no bundle.", hint="`headwater deploy` makes and sends them.")
    files: dict[str, bytes] = {}
    for name, content in _entries(_inflated(archive)):
        if name in files:
            raise CheckFailedError(f"Two files of the bundle have the name {name!r}.")
        files[name] = content
        if len(files) > FILES_MAX:
            raise CheckFailedError(f"The bundle has more than {FILES_MAX} files.")
    bundle = stored(files)
    if bundle.content_hash != content_hash:
        raise CheckFailedError(
            f"The bundle is {bundle.content_hash}, and was said to be {content_hash}.", hint="Send it again."
        )
    return bundle


def _inflated(archive: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(memoryview(archive)[len(MAGIC) :], _PLAIN_BYTES_MAX)
    except zlib.error as error:
        raise _damaged(error) from error
    if inflate.unconsumed_tail:
        raise CheckFailedError(f"The bundle is larger than {BYTES_MAX} bytes.")
    if not inflate.eof or inflate.unused_data:
        raise CheckFailedError("The archive is not complete.", hint="Send it again.")
    return plain


def _entries(plain: bytes) -> Iterator[tuple[str, bytes]]:
    place = 0
    while place < len(plain):
        if place + _FRAME.size > len(plain):
            raise _damaged("it ends within a file")
        name_bytes, content_bytes = _FRAME.unpack_from(plain, place)
        start = place + _FRAME.size + name_bytes
        name, place = plain[place + _FRAME.size : start], start + content_bytes
        if place > len(plain):
            raise _damaged("it ends within a file")
        try:
            yield name.decode(), plain[start:place]
        except UnicodeDecodeError as error:
            raise _damaged("a name is no UTF-8") from error


def _damaged(how: object) -> CheckFailedError:
    return CheckFailedError(f"The archive is damaged: {how}.", hint="Send it again.")
