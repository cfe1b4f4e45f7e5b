"""The documentation as a site: every page is found, every link leads somewhere, nothing is loaded from elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}
LINK_KINDS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


def named(nav):
    """The pages of a navigation, from top to bottom."""
    for entry in nav:
        for value in entry.values():
            yield from named(value) if isinstance(value, list) else [value]


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """The names of a page's headings, as the site and GitHub make them."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading)).strip().lower()
        found.append(re.sub(r"[-\s]+", "-", words))
    return found


def loaded(html):
    """What a page has the browser load."""
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            values = dict(attributes)
            if tag in LOADING and (tag != "link" or LINK_KINDS & set((values.get("rel") or "").split())):
                found.append(values.get(LOADING[tag]) or "")

    Parser().feed(html)
    return found


def test_every_page_is_in_the_navigation_once_and_every_entry_is_a_page():
    entries = list(named(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(entries) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_its_anchor_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", without_code(page.read_text())):
        if target.startswith("https://"):
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target}#{anchor}"


def test_every_picture_is_used_and_all_are_small():
    used = {name for page in PAGES for name in re.findall(r"images/([\w.-]+)", page.read_text())}
    used |= {Path(name).name for name in re.findall(r"images/[\w.-]+", (ROOT / "zensical.toml").read_text())}
    pictures = list((DOCS / "images").iterdir())
    assert {one.name for one in pictures} == used
    assert sum(one.stat().st_size for one in pictures) < 1_500_000


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "site"
    pages = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {page.relative_to(DOCS) for page in DOCS.rglob("*.md")} <= pages
    for path in site.rglob("*.html"):
        elsewhere = [url for url in loaded(path.read_text()) if re.match(r"(\w+:)?//", url)]
        assert elsewhere == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"""(url\(|@import)\s*['"]?(https?:)?//""", path.read_text()), path.name


def test_what_the_pictures_show_still_comes_about(tmp_path):
    told = """
import asyncio, json, pathlib, sys
import screenshots
from headwater.delivery import DeliveryFilter

async def main():
    async with screenshots.installation(pathlib.Path(sys.argv[1])) as platform:
        states = {one.state for one in await platform.store.deliveries(DeliveryFilter(connection="northwind"))}
        windows = {one.state for one in await platform.store.windows(1)}
        print(json.dumps([sorted(states), sorted(windows), await platform.store.populations()]))

screenshots.STEPS = 3
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", told, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    states, windows, populations = json.loads(done.stdout)
    assert (states, windows) == (["dead", "done"], ["done", "failed", "running", "todo"])
    assert {one[0] for one in populations} == {"acme", "northwind", "tailwind"}


def test_what_a_page_loads_is_found():
    html = '<link rel="preload stylesheet" href="//f.example/x"><link rel="canonical" href="https://a"><script src="b">'
    assert loaded(html) == ["//f.example/x", "b"]
