"""The master keys: what they encrypt, where they are kept, and how they are changed."""

import logging
import stat
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ConfigError, HeadwaterError, SettingsError
from headwater.key_ring import KeyRing, add_key, generate_key

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
CANARY = "sk_live_hunter2hunter2"


@given(plain=st.text(), aad=st.text())
def test_what_was_encrypted_comes_back(plain, aad):
    ring = KeyRing([OLD])
    assert ring.decrypt(ring.encrypt(plain, aad=aad), aad=aad) == plain


def test_a_ciphertext_has_its_form_and_never_twice_the_same():
    ring = KeyRing([OLD])
    first, second = ring.encrypt(CANARY, aad="a"), ring.encrypt(CANARY, aad="a")
    assert first != second
    version, key_id, nonce, sealed = first.split(".")
    assert (version, key_id) == ("v1", ring.key_id)
    assert len(nonce) == 16
    assert CANARY not in first
    assert len(sealed) > len(CANARY)


def refusal(ring, text, aad="a"):
    with pytest.raises(SettingsError) as caught:
        ring.decrypt(text, aad=aad)
    return f"{caught.value} {caught.value.detail}"


def test_every_change_is_refused_with_the_same_words():
    ring = KeyRing([OLD])
    text = ring.encrypt(CANARY, aad="a")
    parts = text.split(".")
    said = {refusal(ring, text, aad="b"), refusal(KeyRing([NEW]), text)}
    for position in range(len(text)):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        said.add(refusal(ring, changed))
    for broken in ("", ".", "...", CANARY, "v2." + text[3:], ".".join([*parts, "x"]), text + "=", text + "\n",
                   ".".join([*parts[:2], "é", parts[3]]), ".".join([*parts[:2], "", ""])):  # fmt: skip
        said.add(refusal(ring, broken))
    assert len(said) == 1
    assert CANARY not in said.pop()


@given(st.text(max_size=60))
def test_no_text_breaks_the_ring(text):
    refusal(KeyRing([OLD]), text)


def test_the_newest_key_encrypts_and_the_old_ones_decrypt():
    old, both = KeyRing([OLD]), KeyRing([NEW, OLD])
    text = old.encrypt(CANARY, aad="a")
    assert both.decrypt(text, aad="a") == CANARY
    assert old.is_newest(text)
    assert not both.is_newest(text)
    assert both.is_newest(both.encrypt(CANARY, aad="a"))
    assert both.key_id == KeyRing([NEW]).key_id != old.key_id


def test_keys_for_other_purposes_are_apart():
    ring = KeyRing([OLD])
    derived = {ring.derive("sessions"), ring.derive("tokens"), KeyRing([NEW]).derive("sessions"), OLD}
    assert len(derived) == 4
    assert ring.derive("sessions") == KeyRing([OLD]).derive("sessions")
    assert len(ring.derive("sessions", length=64)) == 64


def text_of(key):
    return urlsafe_b64encode(key).decode()


@pytest.mark.parametrize(
    "text",
    [text_of(OLD), text_of(OLD).rstrip("="), OLD.hex(), f"# the key\n{OLD.hex()} # made in May\n\n",
     text_of(OLD).replace("-", "+").replace("_", "/")],
)  # fmt: skip
def test_a_key_is_read_in_each_of_its_forms(text):
    assert KeyRing.from_text(text).key_id == KeyRing([OLD]).key_id


def test_several_keys_come_newest_first():
    assert KeyRing.from_text(f"{NEW.hex()}\n{OLD.hex()}").key_id == KeyRing([NEW]).key_id


@pytest.mark.parametrize(
    "text", ["", "# nothing", "correct horse battery staple", OLD.hex()[:-2], text_of(OLD)[:-3], "é"]
)
def test_what_is_no_key_is_refused_without_being_repeated(text):
    with pytest.raises(ConfigError) as caught:
        KeyRing.from_text(text)
    assert not text.strip("# ") or text not in str(caught.value)


def test_a_ring_shows_no_key():
    ring = KeyRing([OLD])
    assert OLD.hex() not in repr(ring)
    assert text_of(OLD) not in repr(ring)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "key"
    first = KeyRing.from_file(path, create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.from_file(path, create=True).key_id == first.key_id
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_when_two_processes_make_a_key_the_first_one_stands(tmp_path):
    path = tmp_path / "key"

    def late(size):
        if not path.exists():
            path.write_text(OLD.hex())
            path.chmod(0o600)
        return NEW[:size]

    assert KeyRing.from_file(path, create=True, random_bytes=late).key_id == KeyRing([OLD]).key_id
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_missing_or_unreadable_key_file_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="There is no key file"):
        KeyRing.from_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be used"):
        KeyRing.from_file(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="something else than keys"):
        KeyRing.from_file(tmp_path / "binary")


def test_a_key_file_that_others_can_read_is_warned_of(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text(generate_key())
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        KeyRing.from_file(path)
    assert "make it 0600" in caplog.text
    assert path.read_text() not in caplog.text


def test_a_new_key_goes_in_front_and_the_file_stays_private(tmp_path):
    path = tmp_path / "key"
    old = KeyRing.from_file(path, create=True)
    text = old.encrypt(CANARY, aad="a")
    ring = add_key(path)
    assert ring.key_id != old.key_id
    assert ring.decrypt(text, aad="a") == CANARY
    assert KeyRing.from_file(path).key_id == ring.key_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_there_is_no_endless_ring():
    with pytest.raises(HeadwaterError):
        KeyRing([OLD] * 101)
    with pytest.raises(ConfigError, match="32 bytes"):
        KeyRing([b"short"])
