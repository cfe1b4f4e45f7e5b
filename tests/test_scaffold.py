"""A new project passes its check and its own tests as it was written, and overwrites nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headwater.check.check import check
from headwater.errors import UsageError
from headwater.scaffold import DEFAULT_TEMPLATE, TEMPLATES, init

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_passes_its_check_without_a_warning(template: str, tmp_path: Path) -> None:
    files = init(tmp_path / "shop", template=template, key="corner_shop", name="Corner 'n' Shop – Ünïon")
    report = check(tmp_path / "shop")
    assert report.lines() == []
    assert report.project is not None
    assert (report.project.connector.key, report.project.connector.name) == ("corner_shop", "Corner 'n' Shop – Ünïon")
    assert sorted(files) == sorted(path for path in (tmp_path / "shop").rglob("*") if path.is_file())


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_passes_its_own_tests_and_the_house_linter(template: str, tmp_path: Path) -> None:
    init(tmp_path / "shop", template=template)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--line-length", "120", "."],
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


def test_the_default_has_a_poll_and_a_webhook(tmp_path: Path) -> None:
    init(tmp_path / "shop")
    project = check(tmp_path / "shop").project
    assert project is not None
    assert DEFAULT_TEMPLATE == "poll+webhook"
    assert [(one.key, one.mode) for one in project.connector.streams] == [("customers", "poll"), ("events", "webhook")]


@pytest.mark.parametrize(
    ("folder", "key"), [("shop", "shop"), ("Corner-Shop", "corner_shop"), ("headwater-connector-shop", "shop")]
)
def test_the_key_is_made_of_the_folders_name(folder: str, key: str, tmp_path: Path) -> None:
    init(tmp_path / folder)
    assert f'key="{key}"' in (tmp_path / folder / "connector.py").read_text()


def test_no_placeholder_is_left(tmp_path: Path) -> None:
    for template in TEMPLATES:
        for path in init(tmp_path / template, template=template, key="shop", name="Shop"):
            assert "$key" not in path.read_text()
            assert "$name" not in path.read_text()
            assert "KEY" not in path.name


def test_an_existing_file_is_not_overwritten_and_nothing_else_is_written(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "connector.py").write_text("mine")
    with pytest.raises(UsageError, match=r"connector\.py is there already"):
        init(tmp_path / "shop")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["connector.py"]
    assert (tmp_path / "shop" / "connector.py").read_text() == "mine"


def test_a_folder_with_other_files_is_filled(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("mine")
    init(tmp_path, key="shop")
    assert (tmp_path / "connector.py").is_file()
    assert (tmp_path / "LICENSE").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"template": "pol"}, "Did you mean `poll`?"),
        ({"key": "Corner Shop"}, "ill-formed"),
        ({"key": "9lives"}, "ill-formed"),
        ({"key": "../up"}, "ill-formed"),
        ({"name": ""}, "not usable"),
        ({"name": 'Shop", evil="'}, "not usable"),
        ({"name": "Shop\nEvil"}, "not usable"),
        ({"name": "x" * 201}, "not usable"),
    ],
)
def test_unusable_words_are_refused_with_nothing_written(given: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        init(tmp_path / "shop", **given)
    assert says in str(caught.value)
    assert not (tmp_path / "shop").exists()


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        init(tmp_path / "file" / "shop")


def test_the_templates_are_part_of_the_package() -> None:
    assert list((ROOT / "src" / "headwater" / "templates").rglob("connector.py.tmpl"))
