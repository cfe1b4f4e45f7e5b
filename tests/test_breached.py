"""Breached passwords: every one of a file is found and no other, few lines are read, no other file is taken."""

from hashlib import sha1

import pytest

from doors import visit
from headwater.breached import BreachedPasswords
from headwater.errors import ConfigError


def hashed(password):
    return sha1(password.encode()).hexdigest().upper()


def listed(path, passwords, *, end="\n", counts=True):
    """A file as the downloader makes it."""
    lines = [f"{one}:{7 ** (place % 9)}" if counts else one for place, one in enumerate(sorted(map(hashed, passwords)))]
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 300])
def test_every_password_of_the_file_is_found_and_no_other(tmp_path, size, counts, end):
    known = [f"pässword {number}" for number in range(size)]
    found = BreachedPasswords.at(listed(tmp_path / "list", known, end=end, counts=counts))
    assert all(found.holds(one) for one in known)
    assert not any(found.holds(f"another {number}") for number in range(300))


def test_the_last_line_may_lack_its_end(tmp_path):
    path = listed(tmp_path / "list", map(str, range(20)))
    path.write_bytes(path.read_bytes().rstrip())
    assert all(BreachedPasswords.at(path).holds(str(one)) for one in range(20))


def test_little_of_the_file_is_read(tmp_path, monkeypatch):
    path = listed(tmp_path / "list", (str(one) for one in range(20_000)))
    found, read = BreachedPasswords.at(path), []
    one_line = BreachedPasswords._hash
    monkeypatch.setattr(BreachedPasswords, "_hash", lambda *words: read.append(1) or one_line(*words))
    assert found.holds("19999")
    assert len(read) <= path.stat().st_size.bit_length() + 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello\n" * 50, "no SHA-1 hash"),
        (b"8846F7EAEE8FB117AD06BDD830B7586C:9\n" * 50, "no SHA-1 hash"),  # NTLM
        (b"".join(f"{hashed(str(one))}:9\n".encode() for one in range(500)), "not in the order"),
        (None, "No such file"),
    ],
)
def test_what_is_no_such_file_is_refused_at_the_start(tmp_path, content, says):
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as told:
        BreachedPasswords.at(path)
    assert str(path) in str(told.value)


def test_an_installation_without_its_file_does_not_start(tmp_path):
    async def act(_):
        raise AssertionError("it started")

    with pytest.raises(ConfigError, match="No such file"):
        visit(tmp_path, act, breached_passwords=tmp_path / "list")


def test_a_file_that_goes_away_lets_no_password_pass(tmp_path):
    found = BreachedPasswords.at(listed(tmp_path / "list", ["a"]))
    found.path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        found.holds("b")
