"""The documents say what is so: files and commands exist, the README's connector passes its check."""

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

import headwater
from headwater.canonical.registry import shipped
from headwater.check.check import check
from headwater.cli.main import COMMANDS, root
from headwater.config import Config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_named_is_there(page):
    folders = "tests|docs|src/headwater|bench|connectors"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+\.(?:py|md|sql|json))`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_exists_with_its_options(page):
    text = page.read_text()
    lines = [line for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$")]
    lines += re.findall(r"`(headwater [^`]+)`", text)
    for line in lines:
        words = re.sub(r"^\$\s*|#.*$|\s\s\(.*$", "", line).replace(".venv/bin/", "").split("&&")[0].split()
        if words and words[0] == "headwater":
            assert_is_command(words[1:])


def assert_is_command(words):
    command, context = root, click.Context(root)
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None and (start := command.get_command(context, "start")):
            command = start  # nobody has to type it
            break
        assert found is not None, f"there is no command {words}"
        command, words = found, words[1:]
    if isinstance(command, click.Group) and (default := command.get_command(context, "list")):
        command = default  # a family of commands alone lists
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--") and word != "--help":
            assert word.split("=")[0] in known, f"{command.name} has no option {word}"


def test_the_readmes_connector_passes_its_check(tmp_path):
    (block,) = blocks((ROOT / "README.md").read_text(), "python")
    parts = re.split(r"^# (\S+\.py)\n", block, flags=re.MULTILINE)[1:]
    for name, code in zip(parts[::2], parts[1::2], strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    assert len(block.splitlines()) <= 30
    report = check(tmp_path)
    assert report.lines() == []
    assert report.project is not None


def test_the_readmes_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        code = " ".join(re.findall(r"`[^`]*`", page.read_text()))
        for target in re.findall(r"\bmake (?:-s )?([a-z]+(?:-[a-z]+)*)\b", code):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_the_reference_is_made_of_the_code(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    made = importlib.import_module("made").PAGES
    stale = [page.name for page, make in made.items() if page.read_text() != make()]
    assert stale == [], "`make docs` writes them anew"
    assert all(f"`headwater {name}" in (ROOT / "docs/reference/cli.md").read_text() for name in COMMANDS)


def test_the_reference_leaves_no_operation_no_field_and_no_export_out(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    told = importlib.import_module("of_api").described()["paths"]
    page = (ROOT / "docs/reference/api.md").read_text()
    left = [
        f"{method.upper()} {path}"
        for path, methods in told.items()
        for method in methods
        if f"### `{method.upper()} {path}`" not in page and not re.fullmatch(r"/acts/[\w.]+/plan", path)
    ]
    assert left == []
    author = "".join((ROOT / f"docs/reference/{name}.md").read_text() for name in ("manifest", "routes"))
    assert [name for name in headwater.__all__ if name not in author] == []
    assert all(f"`{one.name}`" in author for one in fields(headwater.Stream))
    settings = (ROOT / "docs/reference/configuration.md").read_text()
    assert all(f"| `{one.name}` |" in settings for one in fields(Config) if one.name != "directory")
    assert all(f"### `{name}`" in (ROOT / "docs/reference/types.md").read_text() for name in shipped())


def test_the_reference_of_the_manifest_begins_with_one_that_is_right():
    (block,) = blocks((ROOT / "docs/reference/manifest.md").read_text(), "python")
    named = {}
    exec(block, named)
    assert isinstance(named["connector"], headwater.Connector)


def test_figures_say_how_they_were_come_by_and_the_page_links_each():
    page = (ROOT / "docs/reliability.md").read_text()
    figures = sorted((ROOT / "docs/figures").glob("*.json"))
    assert figures
    for path in figures:
        told = json.loads(path.read_text())
        assert told["command"].startswith("make ")
        assert re.fullmatch(r"[0-9a-f]{7}", told["commit"])
        assert told["machine"]
        assert told["problems"] == []
        assert f"](figures/{path.name})" in page
        assert told["commit"] in page


def test_the_changelog_has_an_unreleased_part():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_the_security_table_names_every_security_test_and_no_other() -> None:
    named = set(re.findall(r"`(test_v\d+_\d+_\d+_\w+)`", (ROOT / "docs/security.md").read_text()))
    written = {
        name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in re.findall(r"^def (test_v\d+_\d+_\d+_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert named == written
