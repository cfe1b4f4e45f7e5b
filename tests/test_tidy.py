"""What a linter cannot say: the size of modules and functions, the drawing of the layers, words that may not appear."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "headwater"
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
MODULES = sorted(SOURCE.rglob("*.py"))


def tracked():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_and_its_functions_keep_their_size(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_says_why_it_exists(path):
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text))


def test_no_bucket_modules():
    buckets = {"utils", "util", "common", "helpers", "core", "base", "models", "types", "misc"}
    assert not [path for path in MODULES if path.stem in buckets]


def test_packages_inside_have_empty_inits():
    for path in SOURCE.rglob("__init__.py"):
        assert path.parent == SOURCE or not path.read_text(), path


def test_nothing_inside_imports_the_package_root():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "headwater" and node.level == 0:
                submodules = {entry.stem for entry in SOURCE.iterdir()}
                assert (path.parent == SOURCE and path.name == "__init__.py") or {
                    alias.name for alias in node.names
                } <= submodules, path


def test_time_and_chance_come_only_from_the_clock():
    pattern = re.compile(r"\b(datetime\.now|datetime\.utcnow|time\.time|time\.monotonic|random\.random)\(")
    for path in MODULES:
        if path.name != "clock.py":
            assert not pattern.search(path.read_text()), path


def test_the_repository_speaks_of_the_project_alone():
    host = re.compile(r"(pypi|npmjs|pythonhosted)\.org")
    machine = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root)/")
    for path in tracked():
        if path.suffix in {".png", ".gz", ".db"} or path.name == "LICENSE" or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        assert not host.search(text), path
        assert not machine.search(text), path


def test_no_lock_file_that_names_a_registry():
    assert not {path.name for path in tracked()} & {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock"}


def test_every_requirement_is_pinned_by_hash():
    for path in (ROOT / "requirements").glob("*.txt"):
        pins = re.split(r"\n(?=\S)", path.read_text().strip())
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins), path


def test_the_runtime_requirements_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[>=]", requirement)[0] for requirement in project["dependencies"]}
    pinned = {
        line.split("==")[0] for line in (ROOT / "requirements" / "run.txt").read_text().splitlines() if "==" in line
    }
    assert names <= pinned
