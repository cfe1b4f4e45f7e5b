"""Loading: private packages, two projects and two versions side by side, and a hash of exactly what runs."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path

import pytest

from headwater import bundle, project
from headwater.errors import CheckFailedError
from headwater.project import discover, load, retire, unload
from project_builder import CUSTOMERS, GOOD, LIB, LIBRARY, manifest, write_project

RECORDS = """\
from headwater import Canonical
from headwater.canonical.commerce import Customer


class Parcel(Canonical):
    id: str
"""


def test_a_project_loads_with_its_routes(tmp_path: Path) -> None:
    loaded = load(write_project(tmp_path / "shop"))
    assert loaded.connector.key == "shop"
    assert set(loaded.sync_routes) == {"customers", "invoices"}
    assert inspect.iscoroutinefunction(loaded.webhook_route)
    assert inspect.iscoroutinefunction(loaded.test_route)
    assert loaded.version == f"0.1.0+{loaded.content_hash[:8]}"
    assert "customer" in loaded.types


def test_two_projects_that_own_the_same_library_live_in_one_process(tmp_path: Path) -> None:
    one = load(write_project(tmp_path / "one" / "shop", {LIB: LIBRARY + "NAME = 'one'\n"}))
    two = load(write_project(tmp_path / "two" / "shop", {LIB: LIBRARY + "NAME = 'two'\n"}))
    assert (one.module("lib.shop").NAME, two.module("lib.shop").NAME) == ("one", "two")
    assert one.sync_routes["customers"].__globals__["customer_record"] is one.module("lib.shop").customer_record


def test_equal_content_in_two_folders_shares_no_module(tmp_path: Path) -> None:
    one, two = load(write_project(tmp_path / "one" / "shop")), load(write_project(tmp_path / "two" / "shop"))
    assert one.content_hash == two.content_hash
    assert one.module("lib.shop") is not two.module("lib.shop")


def test_a_new_version_loads_beside_the_old_one_which_goes_on_unchanged(tmp_path: Path) -> None:
    lazy = "\n\ndef late():\n    from .late import NAME\n\n    return NAME\n"
    folder = write_project(tmp_path / "shop", {LIB: LIBRARY + lazy, "src/lib/late.py": "NAME = 'old'\n"})
    old = load(folder)
    write_project(folder, {LIB: LIBRARY + lazy, "src/lib/late.py": "NAME = 'new'\n"})
    new = load(folder)
    assert old.content_hash != new.content_hash
    # The old version imports its module only now, when the disk holds the new one.
    assert (old.module("lib.shop").late(), new.module("lib.shop").late()) == ("old", "new")


def test_the_same_content_is_loaded_once(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    assert load(folder).sync_routes["customers"] is load(folder).sync_routes["customers"]


def test_loading_leaves_the_path_and_the_folder_as_they_were(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    path, files = list(sys.path), sorted(folder.rglob("*"))
    load(folder)
    assert sys.path == path
    assert sorted(folder.rglob("*")) == files


def test_a_module_that_appears_later_is_no_part_of_the_version(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    loaded = load(folder)
    (folder / "src/lib/later.py").write_text("x = 1\n")
    with pytest.raises(ModuleNotFoundError, match=r"src\.lib\.later"):
        loaded.module("lib.later")


def test_a_retired_project_is_forgotten_once_nobody_holds_it(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    held = load(folder)
    package = held.package
    retire(held)
    assert held.module("lib.shop").API == "https://api.shop.example"
    again = load(folder)
    assert again.package == package
    del held
    gc.collect()
    assert package in sys.modules, "the same version was loaded again meanwhile"
    retire(again)
    del again
    gc.collect()
    assert not [name for name in sys.modules if name.startswith(package)]


def test_unloaded_functions_go_on_working(tmp_path: Path) -> None:
    loaded = load(write_project(tmp_path / "shop"))
    record = loaded.module("lib.shop").customer_record
    unload(loaded.package)
    assert record({"id": "1", "email": "a@example.com"}) == {"id": "1", "email": "a@example.com"}
    assert not [name for name in sys.modules if name.startswith(loaded.package)]


def test_tracebacks_name_the_project_file_and_its_line(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop", {LIB: LIBRARY + "\n\ndef fails():\n    raise ValueError('no')\n"})
    try:
        load(folder).module("lib.shop").fails()
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.line) == (str(folder / LIB), "raise ValueError('no')")


def test_the_manifest_may_import_from_its_own_source(tmp_path: Path) -> None:
    text = "from .src.lib.names import NAME\n" + manifest(('name="Shop"', "name=NAME"))
    files = {"connector.py": text, "src/lib/names.py": "NAME = 'Corner shop'\n", "src/lib/__init__.py": ""}
    assert load(write_project(tmp_path / "shop", files)).connector.name == "Corner shop"


def test_plain_functions_are_routes_too(tmp_path: Path) -> None:
    code = GOOD[CUSTOMERS].replace("async def post", "def post").replace("await ", "")
    loaded = load(write_project(tmp_path / "shop", {CUSTOMERS: code}))
    assert not asyncio.iscoroutinefunction(loaded.sync_routes["customers"])


def test_own_types_are_those_that_the_records_file_declares(tmp_path: Path) -> None:
    files = {"src/records.py": RECORDS + "\n\nSCHEMAS = {'crate': {'type': 'object'}}\n"}
    own = set(load(write_project(tmp_path / "shop", files)).types) - set(project.shipped_types())
    assert own == {"parcel", "crate"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"connector.py": None}, "There is no manifest"),
        ({"connector.py": "x = 1\n"}, "no value `connector"),
        ({"connector.py": "raise ValueError('no')\n"}, "cannot be imported: ValueError: no"),
        ({CUSTOMERS: None}, "customers.py: The manifest needs this route"),
        ({CUSTOMERS: "x = 1\n"}, "It has no `post`"),
        ({LIB: "def (:\n"}, "SyntaxError"),
        ({"src/records.py": RECORDS.replace("Parcel", "Customer_").replace("import Customer", "import Price")}, ""),
        ({"src/records.py": RECORDS.replace("Parcel", "Invoice")}, "gives the canonical type `invoice` another shape"),
        ({"src/records.py": "SCHEMAS = {'crate': {'type': 'objct'}}\n"}, "`crate` is no canonical type"),
    ],
)
def test_what_does_not_load_says_why(files: dict[str, str | None], says: str, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop", files)
    if not says:
        assert "customer_" in load(folder).types
        return
    with pytest.raises(CheckFailedError) as caught:
        load(folder)
    assert says in str(caught.value)
    assert "headwater check" in caught.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="no folder"):
        load(tmp_path / "nowhere")


def test_the_hash_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    one, two = write_project(tmp_path / "one"), write_project(tmp_path / "two")
    os.utime(two / "connector.py", (0, 0))
    (two / "connector.py").chmod(0o600)
    for ignored in ("tests/test_shop.py", ".venv/lib/x.py", ".git/HEAD", "src/__pycache__/x.pyc", "src/lib/.swp"):
        (two / ignored).parent.mkdir(parents=True, exist_ok=True)
        (two / ignored).write_text("x")
    assert bundle.read(one).content_hash == bundle.read(two).content_hash
    assert list(bundle.read(two).files) == sorted(GOOD)


@pytest.mark.parametrize(("name", "content"), [(LIB, "x = 1\n"), ("README.md", "hello"), ("src/data.json", "{}")])
def test_any_file_that_changes_changes_the_hash(name: str, content: str, tmp_path: Path) -> None:
    before = bundle.read(write_project(tmp_path / "shop")).content_hash
    assert bundle.read(write_project(tmp_path / "shop", {name: content})).content_hash != before


def test_moving_bytes_between_files_changes_the_hash(tmp_path: Path) -> None:
    one = write_project(tmp_path / "one", {"src/a.txt": "ab", "src/b.txt": "c"})
    two = write_project(tmp_path / "two", {"src/a.txt": "a", "src/b.txt": "bc"})
    assert bundle.read(one).content_hash != bundle.read(two).content_hash


def test_links_that_leave_the_folder_are_refused_and_others_are_read(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    (folder / "src/lib/again.py").symlink_to("shop.py")
    assert bundle.read(folder).files["src/lib/again.py"] == LIBRARY.encode()
    (tmp_path / "outside.py").write_text("x = 1\n")
    (folder / "src/lib/outside.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(CheckFailedError, match=r"outside\.py: The link leads out"):
        bundle.read(folder)


@pytest.mark.parametrize("target", ["..", "missing.py", "loop.py"])
def test_links_to_folders_nothing_or_themselves_are_refused(target: str, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    (folder / "src/lib/loop.py").symlink_to(target)
    assert [one.path for one in bundle.survey(folder).refused] == ["src/lib/loop.py"]


def test_special_files_are_refused_without_being_read(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    os.mkfifo(folder / "src/pipe")
    assert [one.reason for one in bundle.survey(folder).refused] == ["It is no regular file."]


def test_a_project_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_project(tmp_path / "shop")
    monkeypatch.setattr(bundle, "BYTES_MAX", 100)
    assert "larger than 100 bytes" in bundle.survey(folder).refused[0].reason
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "FILES_MAX", 2)
    assert "more than 2 files" in bundle.survey(folder).refused[0].reason


def test_a_nest_of_folders_is_refused(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    (folder / "/".join(["deep"] * (bundle.DEPTH_MAX + 2))).mkdir(parents=True)
    assert "nested deeper" in bundle.survey(folder).refused[0].reason


def test_installed_connectors_are_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_project(tmp_path / "corner_shop", {"__init__.py": "raise SystemExit('imported')\n"})
    info = tmp_path / "corner_shop-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corner-shop\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[headwater.connectors]\nshop = corner_shop\n"
        "shop_too = corner_shop.connector:connector\ngone = no_such_package\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    found = {one.name: (one.path, one.distribution) for one in discover()}
    assert found["shop"] == found["shop_too"] == (folder, "corner-shop 1.2")
    assert found["gone"] == (None, "corner-shop 1.2")
    assert load(folder).connector.key == "shop"
    assert "corner_shop" not in sys.modules
