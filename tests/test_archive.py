"""A bundle as bytes: the same files give the same bytes, and nothing else gets in, whatever it claims to be."""

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import archive, bundle
from headwater.errors import CheckFailedError
from project_builder import write_project

HASH = "0" * 32


def packed(*files, head=archive.MAGIC):
    plain = b"".join(struct.pack(">II", len(name), len(content)) + name + content for name, content in files)
    return head + zlib.compress(plain)


def test_an_archive_gives_back_the_bundle_and_no_path_on_the_disk(tmp_path):
    read = bundle.read(write_project(tmp_path / "shop"))
    back = archive.unpack(archive.pack(read), content_hash=read.content_hash)
    assert (dict(back.files), back.content_hash) == (dict(read.files), read.content_hash)
    assert str(back.path) == f"bundle:{read.content_hash}"


def test_the_bytes_depend_on_the_files_alone(tmp_path):
    one, two = write_project(tmp_path / "one"), write_project(tmp_path / "elsewhere" / "two")
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
    (two / "tests").mkdir()
    (two / "tests/test_shop.py").write_text("no part of it")
    (two / ".env").write_text("SECRET=1")
    assert archive.pack(bundle.read(one)) == archive.pack(bundle.read(two))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(noise):
    for data in (noise, archive.MAGIC + noise, archive.MAGIC + zlib.compress(noise)):
        with pytest.raises(CheckFailedError):
            archive.unpack(data, content_hash=HASH)


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    read = bundle.read(write_project(tmp_path / "shop"))
    whole = archive.pack(read)
    for length in range(0, len(whole), 7):
        with pytest.raises(CheckFailedError):
            archive.unpack(whole[:length], content_hash=read.content_hash)
    with pytest.raises(CheckFailedError, match="not complete"):
        archive.unpack(whole + b"more", content_hash=read.content_hash)


def test_another_name_than_the_contents_own_is_refused(tmp_path):
    read = bundle.read(write_project(tmp_path / "shop"))
    with pytest.raises(CheckFailedError, match=f"was said to be {HASH}"):
        archive.unpack(archive.pack(read), content_hash=HASH)


@pytest.mark.parametrize(
    "names",
    [
        ["../connector.py"], ["src/../../x.py"], ["/etc/passwd"], ["src//x.py"], ["./x.py"], ["src/"], [""],
        ["C:x.py"], ["src\\x.py"], ["a\0b"], ["a\nb"], ["\u202ex.py"], ["x" * 600], ["d/" * 40 + "x.py"],
        [".git/config"], ["src/__pycache__/x.py"], ["src/x.pyc"],
        ["src/Lib.py", "src/lib.py"], ["src/a", "src/a/b.py"], ["Src/a.py", "src/b.py"], ["é.py", "e\u0301.py"],
        ["straße.py", "STRASSE.py"],
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_is_anothers_is_refused(names):
    with pytest.raises(CheckFailedError):
        archive.unpack(packed(*((name.encode(), b"x") for name in names)), content_hash=HASH)


def test_the_same_name_twice_and_a_name_that_is_no_text_are_refused():
    with pytest.raises(CheckFailedError, match="Two files of the bundle"):
        archive.unpack(packed((b"x.py", b"1"), (b"x.py", b"2")), content_hash=HASH)
    with pytest.raises(CheckFailedError, match="no UTF-8"):
        archive.unpack(packed((b"\xff.py", b"1")), content_hash=HASH)


def test_a_bomb_is_refused_within_the_memory_of_a_bundle():
    bomb = archive.MAGIC + zlib.compress(bytes(1_000_000_000))
    assert len(bomb) < archive.ARCHIVE_BYTES_MAX
    tracemalloc.start()
    try:
        with pytest.raises(CheckFailedError, match="larger than"):
            archive.unpack(bomb, content_hash=HASH)
        assert tracemalloc.get_traced_memory()[1] < 4 * bundle.BYTES_MAX
    finally:
        tracemalloc.stop()


def test_every_limit_is_kept(monkeypatch):
    with pytest.raises(CheckFailedError, match="more than 5000 files"):
        archive.unpack(packed(*((b"f%d" % number, b"") for number in range(5_001))), content_hash=HASH)
    monkeypatch.setattr(bundle, "FILE_BYTES_MAX", 3)
    with pytest.raises(CheckFailedError, match="The file is larger than 3 bytes"):
        archive.unpack(packed((b"x.py", b"1234")), content_hash=HASH)
    monkeypatch.setattr(bundle, "BYTES_MAX", 3)
    with pytest.raises(CheckFailedError, match="The project is larger than 3 bytes"):
        archive.unpack(packed((b"x.py", b"12"), (b"y.py", b"34")), content_hash=HASH)
    monkeypatch.setattr(archive, "ARCHIVE_BYTES_MAX", 10)
    with pytest.raises(CheckFailedError, match="archive is larger than 10 bytes"):
        archive.unpack(packed((b"x.py", b"1")), content_hash=HASH)


def test_a_folder_is_judged_by_the_same_names(tmp_path):
    folder = write_project(tmp_path / "shop", {"src/lib/Shop.py": "x = 1\n"})
    assert [one.path for one in bundle.survey(folder).refused] == ["src/lib/shop.py"]
    with pytest.raises(CheckFailedError, match="are the same on some machines"):
        bundle.read(folder)
