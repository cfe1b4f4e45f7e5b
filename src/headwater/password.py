"""Passwords: which ones are good enough, and their argon2id hashes.

There is no rule of composition. What is refused is what is guessed first: common words and their ornaments, sequences,
repetitions, and what names the person or this program.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from headwater.errors import UsageError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

PASSWORD_CHARACTERS_MIN = 12
PASSWORD_CHARACTERS_MAX = 128
DIFFERENT_CHARACTERS_MIN = 5
REST_CHARACTERS_MIN = 6  # of a password, beside the common words in it
# OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
HASHES_AT_ONCE = 2  # each takes that memory and a core: a flood of logins waits in line

_SEQUENCES = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb",
)
_COMMON_WORDS = """
password passwort passwd pass motdepasse contrasena senha qwerty qwertz azerty asdf letmein welcome willkommen bienvenue
admin administrator root user guest login master secret changeme default temp test testing demo example sample hello
monkey dragon shadow sunshine princess football baseball basketball soccer hockey superman batman spiderman pokemon
starwars iloveyou loveme lovely love trustno trust whatever freedom mustang harley jordan michael jennifer jessica
ashley daniel andrew thomas robert charlie george summer winter spring autumn january february march april june july
august september october november december monday friday sunday company google facebook apple microsoft windows linux
computer internet server database security access system manager office email money flower cookie cheese banana orange
chocolate killer ninja hunter ranger tigger pepper ginger maggie buster hannah
headwater stripe connector webhook operator viewer
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_LEET = str.maketrans("0134578@$!|", "oleastbasil")
_at_once: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}


def require_good(password: str, *, names: Iterable[str] = ()) -> None:
    """`UsageError` with what is wrong with a new password; `names` are words that name its owner."""
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        raise UsageError(
            f"The password is to have {PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX} characters.",
            hint="A few words that do not belong together are easy to remember.",
        )
    if _is_guessed_first(password, names):
        raise UsageError(
            "This password is among those that are guessed first.",
            hint="Take one without common words, names, sequences or repetitions at its heart.",
        )


async def hashed(password: str) -> str:
    """The argon2id hash, in its standard text form."""
    async with _in_line():
        return await asyncio.to_thread(_hasher().hash, password)


async def matches(stored: str, password: str) -> bool:
    """Whether the password is that of the hash; as slow for no hash at all ("")."""
    from argon2.exceptions import InvalidHashError, VerificationError

    if len(password) > PASSWORD_CHARACTERS_MAX:
        return False
    async with _in_line():
        try:
            return await asyncio.to_thread(_hasher().verify, stored or _nobodys(), password) and stored != ""
        except (VerificationError, InvalidHashError):
            return False


def is_weak(stored: str) -> bool:
    """Whether a hash was made with less than is asked today."""
    return _hasher().check_needs_rehash(stored)


def _is_guessed_first(password: str, names: Iterable[str]) -> bool:
    plain = password.lower()
    if len(set(plain)) < DIFFERENT_CHARACTERS_MIN or re.fullmatch(r"(.{1,6})\1+.{0,5}", plain, re.DOTALL):
        return True
    words = [*_COMMON, *(word for name in names for word in re.split(r"\W+", name.lower()) if len(word) > 2)]
    return any(len(_rest(form, words)) < REST_CHARACTERS_MIN for form in (plain, plain.translate(_LEET)))


def _rest(text: str, words: Iterable[str]) -> str:
    """What is left without common words and the ornaments around them, and without sequences."""
    kept = text
    for word in sorted(set(words), key=len, reverse=True):
        kept = kept.replace(word, "")
    if kept != text:
        kept = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", re.sub(r"(19|20)\d\d", "", kept))
    for sequence in _SEQUENCES:
        for length in range(len(sequence), 2, -1):
            for start in range(len(sequence) - length + 1):
                part = sequence[start : start + length]
                kept = kept.replace(part, "").replace(part[::-1], "")
    return re.sub(r"(.)\1+", r"\1", kept)


def _in_line() -> asyncio.Semaphore:
    loop = asyncio.get_running_loop()
    if loop not in _at_once:
        _at_once.clear()  # loops before this one are gone
        _at_once[loop] = asyncio.Semaphore(HASHES_AT_ONCE)
    return _at_once[loop]


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)


@cache
def _nobodys() -> str:
    return _hasher().hash(secrets.token_urlsafe())
