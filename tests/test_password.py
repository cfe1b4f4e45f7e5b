"""Passwords: which are refused, and how they are kept."""

import asyncio

import pytest

from headwater import password
from headwater.errors import UsageError


@pytest.mark.parametrize(
    "good",
    [
        "correct horse battery staple",
        "xK9#mQ2$vL7!",
        "Ünïcödé ist erlaubt",
        "   spaces count   yes",
        "x" * 3 + "tundra-gravel-omelette",
        "mortar gasket violin 17",
        "k3r8-tq0z-mm4v-92hd",
    ],
)
def test_what_nobody_guesses_is_good_whatever_it_is_made_of(good):
    password.require_good(good, names=("ann@example.com", "Ann Smith"))


@pytest.mark.parametrize(
    "bad",
    [
        "short", "x" * 129, "aaaaaaaaaaaa", "abcabcabcabc", "password1234", "P@ssw0rd2026!", "123456789012",
        "qwertyuiop123", "Welcome2Headwater!", "adminadmin1!", "1qaz2wsx3edc", "headwater-2026", "iloveyou!!2024",
        "ann.example.1999", "AnnSmith!2026", "abcdefghijkl", "Summer2026!!!!",
    ],
)  # fmt: skip
def test_what_is_guessed_first_is_refused(bad):
    with pytest.raises(UsageError):
        password.require_good(bad, names=("ann.smith@example.com", "Ann Smith"))


def test_thousands_of_the_common_ones_are_refused():
    refused = 0
    for word in sorted(password._COMMON):
        for ending in ("123", "1234", "12345", "123456", "!", "1!", "2024", "2025", "2026", "!!", "_2026", "@123"):
            for form in (word, word.capitalize(), word.upper(), word * 2, word.replace("a", "@").replace("o", "0")):
                guess = form + ending
                if len(guess) >= password.PASSWORD_CHARACTERS_MIN:
                    with pytest.raises(UsageError):
                        password.require_good(guess)
                    refused += 1
    assert refused > 3000


def test_a_hash_is_argon2id_and_matches_its_password_alone():
    async def main():
        stored = await password.hashed("correct horse battery")
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert stored != await password.hashed("correct horse battery")
        assert await password.matches(stored, "correct horse battery")
        for wrong in ("correct horse batter", "correct horse battery ", "Correct horse battery", "", "x" * 10_000):
            assert not await password.matches(stored, wrong)
        assert not await password.matches("", "")
        assert not await password.matches("", "correct horse battery")
        assert not await password.matches("no hash", "no hash")
        assert not password.is_weak(stored)
        assert password.is_weak(stored.replace("m=19456", "m=8"))

    asyncio.run(main())
