"""The master keys that encrypt secrets at rest: AES-256-GCM under keys derived from them, newest first.

A ciphertext reads `v1.<key id>.<nonce>.<ciphertext>`, in base64url. The first key of the ring encrypts; all of them
decrypt, so that keys can be changed while the platform runs.
"""

from __future__ import annotations

import logging
import os
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import ConfigError, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = "v1"
KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID_BYTES = 6
KEYS_MAX = 100

logger = logging.getLogger("headwater.key_ring")

RandomBytes = Callable[[int], bytes]


class KeyRing:
    """The master keys: newest first. It shows none of them."""

    def __init__(self, keys: Sequence[bytes], *, random_bytes: RandomBytes = os.urandom) -> None:
        if not keys:
            raise ConfigError("The key ring is empty.", hint="Give it at least one key.")
        if len(keys) > KEYS_MAX:
            raise ConfigError(f"The key ring has more than {KEYS_MAX} keys.")
        self._random_bytes = random_bytes
        self._newest = keys[0]
        self._ciphers: dict[str, AESGCM] = {}
        for key in keys:
            if len(key) != KEY_BYTES:
                raise ConfigError(f"A key of the key ring is not {KEY_BYTES} bytes long.")
            self._ciphers.setdefault(_key_id(key), _cipher(key))
        self.key_id = _key_id(keys[0])  # of the key that encrypts

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._ciphers)})"

    @classmethod
    def from_text(cls, text: str, *, random_bytes: RandomBytes = os.urandom) -> KeyRing:
        """The ring of the keys in `text`: base64url or hexadecimal, newest first, white space between; `#` comments."""
        words = [word for line in text.splitlines() for word in line.partition("#")[0].split()]
        return cls([_parsed(word, number) for number, word in enumerate(words, 1)], random_bytes=random_bytes)

    @classmethod
    def from_file(cls, path: Path, *, create: bool = False, random_bytes: RandomBytes = os.urandom) -> KeyRing:
        """The ring in the file at `path`; with `create`, one new key that only its owner can read, if there is none."""
        try:
            if create and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_new(path, generate_key(random_bytes) + "\n", random_bytes)
            text = path.read_text(encoding="ascii")
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            raise ConfigError(
                f"There is no key file {path}.", hint="Restore it, or the stored secrets are lost."
            ) from None
        except OSError as error:
            raise ConfigError(f"The key file {path} cannot be used: {error.strerror}.") from error
        except UnicodeDecodeError:
            raise ConfigError(f"The key file {path} holds something else than keys.") from None
        if mode & 0o077:
            logger.warning("The key file %s can be read by others (mode %o): make it 0600.", path, mode)
        return cls.from_text(text, random_bytes=random_bytes)

    def encrypt(self, plain: str, *, aad: str) -> str:
        """`plain` under the newest key, to be decrypted only with the same `aad`."""
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = self._ciphers[self.key_id].encrypt(nonce, plain.encode(), _associated(self.key_id, aad))
        return ".".join((VERSION, self.key_id, _encoded(nonce), _encoded(sealed)))

    def decrypt(self, text: str, *, aad: str) -> str:
        """The plain text; `SettingsError`, always the same one, when anything at all about `text` is not as it was."""
        from cryptography.exceptions import InvalidTag

        try:
            version, key_id, nonce, sealed = text.split(".")
            if version != VERSION:
                raise ValueError(version)
            plain = self._ciphers[key_id].decrypt(_decoded(nonce), _decoded(sealed), _associated(key_id, aad))
            return plain.decode()
        except (InvalidTag, KeyError, ValueError, Base64Error):
            raise SettingsError(
                "A stored secret cannot be decrypted.",
                hint="Is the key the one that it was encrypted with? If that key is lost, set the secret anew.",
            ) from None

    def is_newest(self, text: str) -> bool:
        """Whether a ciphertext was made with the key that encrypts now."""
        return text.startswith(f"{VERSION}.{self.key_id}.")

    def derive(self, purpose: str, *, length: int = KEY_BYTES) -> bytes:
        """A key for another purpose, such as signing sessions; it changes when the newest key does."""
        return _derived(self._newest, f"headwater {purpose}", length)


def generate_key(random_bytes: RandomBytes = os.urandom) -> str:
    """A new master key as text."""
    return _encoded(random_bytes(KEY_BYTES))


def add_key(path: Path, *, random_bytes: RandomBytes = os.urandom) -> KeyRing:
    """Put a new key in front of those in the file at `path`; the file is replaced at once, whole, and stays 0600."""
    KeyRing.from_file(path)
    draft = path.with_name(f"{path.name}.{random_bytes(8).hex()}")
    _write_private(draft, f"{generate_key(random_bytes)}\n{path.read_text(encoding='ascii')}")
    draft.replace(path)
    return KeyRing.from_file(path, random_bytes=random_bytes)


def _parsed(word: str, number: int) -> bytes:
    try:
        key = bytes.fromhex(word) if len(word) == 2 * KEY_BYTES else _decoded(word.rstrip("="))
    except (ValueError, Base64Error):
        key = b""
    if len(key) != KEY_BYTES:
        # The word itself may be a good key with one letter lost, so it is not repeated.
        raise ConfigError(
            f"Key {number} of the key ring is not {KEY_BYTES} bytes in base64url or hexadecimal.",
            hint="A pass phrase is no key.",
        )
    return key


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    data = urlsafe_b64decode(text.translate({43: 45, 47: 95}) + "=" * (-len(text) % 4))
    if _encoded(data) != text.translate({43: 45, 47: 95}):
        raise ValueError("not in the one form that this text has")
    return data


def _associated(key_id: str, aad: str) -> bytes:
    return f"{VERSION}.{key_id}.{aad}".encode()


def _derived(key: bytes, purpose: str, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose.encode()).derive(key)


def _key_id(key: bytes) -> str:
    return _encoded(_derived(key, "headwater key id", KEY_ID_BYTES))


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derived(key, "headwater secrets", KEY_BYTES))


def _write_new(path: Path, text: str, random_bytes: RandomBytes) -> None:
    """Write a file that does not exist yet; when another process was faster, its file stands."""
    draft = path.with_name(f"{path.name}.{random_bytes(8).hex()}")
    _write_private(draft, text)
    try:
        # A link appears whole or not at all, and never over a file that is there.
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
