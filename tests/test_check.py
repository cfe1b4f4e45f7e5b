"""The check: each code by a project that shows it alone, all problems at once, and nothing for a good project."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest

from broken_projects import BROKEN
from headwater.catalog import Connection, Connector, Permissions, Stream, Webhooks
from headwater.check.check import check
from headwater.check.code import CODES
from headwater.check.manifest import KINDS, STREAM_BOUNDS, WEBHOOKS_BOUNDS
from headwater.check.permissions import is_permitted, url_address
from project_builder import CUSTOMERS, GOOD, LIB, LIBRARY, MANIFEST, SYNC, manifest, write_project

PAGES = Path(__file__).parent.parent / "docs" / "reference" / "check"
INDEX = PAGES.parent / "check.md"


def test_a_good_project_has_no_diagnostic_and_comes_loaded(tmp_path: Path) -> None:
    report = check(write_project(tmp_path / "shop"))
    assert report.lines() == []
    assert report.project is not None
    assert set(report.project.sync_routes) == {"customers", "invoices"}


@pytest.mark.parametrize("name", sorted(CODES))
def test_each_code_is_shown_by_a_project_with_that_problem_alone(name: str, tmp_path: Path) -> None:
    broken = BROKEN[name]
    folder = write_project(tmp_path / "shop", broken.files)
    for link, target in broken.links.items():
        (folder / link).symlink_to(target)

    report = check(folder)

    assert {one.code for one in report.diagnostics} == {name}, report.lines()
    assert f"{report.diagnostics[0].path}:{report.diagnostics[0].line}" == broken.at
    assert broken.says.lower() in str(report.diagnostics[0]).lower()
    assert report.diagnostics[0].severity == CODES[name].severity
    assert (report.project is None) == (CODES[name].severity == "error")


def test_every_code_has_its_page_and_every_page_its_code() -> None:
    pages = {page.stem: page.read_text() for page in PAGES.glob("*.md")}
    assert sorted(pages) == sorted(CODES)
    for name, text in pages.items():
        assert text.startswith(f"# {name}: {CODES[name].title}\n"), name
        assert "## Example" in text, name
        assert "## How to mend it" in text, name


def test_the_index_of_codes_is_complete() -> None:
    listed = re.findall(
        r"^\| \[(HW\d{3})\]\(check/HW\d{3}\.md\) \| (error|warning) \| (.+) \|$", INDEX.read_text(), re.MULTILINE
    )
    assert listed == [(one.name, one.severity, one.title) for one in CODES.values()]


def test_codes_are_in_order_and_in_their_group() -> None:
    assert list(CODES) == sorted(CODES)
    assert all(re.fullmatch(r"HW[1-8]\d\d", name) for name in CODES)


def test_all_problems_are_printed_at_once(tmp_path: Path) -> None:
    folder = write_project(
        tmp_path / "shop",
        {
            "connector.py": manifest(
                ('key="shop"', 'key="Shop"'),
                (
                    'Stream("customers", mode="poll", schedule="*/15 * * * *")',
                    'Stream("customer", mode="poll", schedule="x")',
                ),
                ('Stream("invoices"', 'Stream("invoice"'),
                ('auth="standard_webhooks"', 'auth="standard"'),
                ("https://api.shop.example/*", "https://api.shop.test/*"),
            ),
            LIB: LIBRARY.replace("api_key", "token"),
            "src/lib/broken.py": "def (",
        },
    )
    codes = [one.code for one in check(folder).diagnostics]
    wanted = {"HW102", "HW109", "HW206", "HW301", "HW302", "HW304", "HW404", "HW601", "HW602", "HW702"}
    assert wanted <= set(codes)
    assert codes.count("HW301") == codes.count("HW302") == 2


def test_a_misspelled_field_does_not_hide_the_other_problems(tmp_path: Path) -> None:
    text = manifest(
        ('Stream("customers", mode="poll", schedule="*/15 * * * *")', 'Stream("customers", mode="poll", shedule="x")'),
        ('Stream("invoices", mode="backfill")', 'Stream("invoices")'),
        ('version="0.1.0"', 'version="one"'),
    )
    report = check(write_project(tmp_path / "shop", {"connector.py": text}))
    assert [one.code for one in report.diagnostics] == ["HW110", "HW107", "HW107"]


def test_diagnostics_are_sorted_by_path_and_line(tmp_path: Path) -> None:
    folder = write_project(
        tmp_path / "shop", {CUSTOMERS: "x = (", LIB: None, "connector.py": manifest(('"0.1.0"', '""'))}
    )
    found = check(folder).diagnostics
    assert [(one.path, one.line) for one in found] == sorted((one.path, one.line) for one in found)
    assert len({one.path for one in found}) > 2


def test_an_orphan_names_the_stream_it_was_meant_for(tmp_path: Path) -> None:
    files = {CUSTOMERS: None, "src/api/sync/customer.py": GOOD[CUSTOMERS]}
    missing, orphan = check(write_project(tmp_path / "shop", files)).diagnostics
    assert (missing.code, missing.hint) == ("HW301", "Did you mean `customer`? Rename that file.")
    assert (orphan.code, orphan.hint) == ("HW302", "Did you mean `customers`?")


def test_one_broken_library_is_one_diagnostic_however_many_routes_import_it(tmp_path: Path) -> None:
    report = check(write_project(tmp_path / "shop", {LIB: LIBRARY + "\nundefined_name\n"}))
    assert [(one.code, one.path) for one in report.diagnostics] == [("HW103", LIB)]


def test_wrong_dots_of_a_relative_import_name_the_module_that_was_meant(tmp_path: Path) -> None:
    text = GOOD[CUSTOMERS].replace("from ...lib.shop", "from ..lib.shop")
    (found,) = check(write_project(tmp_path / "shop", {CUSTOMERS: text})).diagnostics
    assert (found.code, found.line) == ("HW103", 3)
    assert "src.api.lib" in found.message
    assert "_headwater_projects" not in str(found)


def test_an_absolute_import_of_its_own_files_is_explained(tmp_path: Path) -> None:
    text = GOOD[CUSTOMERS].replace("from ...lib.shop", "from src.lib.shop")
    (found,) = check(write_project(tmp_path / "shop", {CUSTOMERS: text})).diagnostics
    assert "relatively" in found.hint


def test_an_exit_at_import_is_a_diagnostic(tmp_path: Path) -> None:
    report = check(write_project(tmp_path / "shop", {"connector.py": MANIFEST + "raise SystemExit(3)\n"}))
    assert [one.code for one in report.diagnostics] == ["HW103"]


def test_a_network_error_that_the_file_swallows_is_still_seen(tmp_path: Path) -> None:
    code = LIBRARY + "import socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass\n"
    report = check(write_project(tmp_path / "shop", {LIB: code}))
    assert [(one.code, one.line) for one in report.diagnostics] == [("HW105", LIBRARY.count("\n") + 3)]


def test_other_threads_keep_their_network_during_a_check(tmp_path: Path) -> None:
    # The file that is imported waits until another thread has opened its socket.
    code = "import probe\n\nprobe.begin.set()\nassert probe.opened.wait(10)\n"
    probe = type(sys)("probe")
    probe.begin, probe.opened = threading.Event(), threading.Event()

    def open_socket() -> None:
        probe.begin.wait(10)
        socket.socket().close()
        probe.opened.set()

    sys.modules["probe"] = probe
    thread = threading.Thread(target=open_socket)
    thread.start()
    try:
        report = check(write_project(tmp_path / "shop", {LIB: LIBRARY + code}))
    finally:
        thread.join(10)
        del sys.modules["probe"]
    assert report.lines() == []
    socket.socket().close()


def test_checks_in_several_threads_leave_everything_as_it_was(tmp_path: Path) -> None:
    before = (socket.socket.__init__, socket.getaddrinfo, sys.stdout)
    folders = [write_project(tmp_path / str(number) / "shop") for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(check, folders))
    assert [report.lines() for report in reports] == [[]] * 8
    assert (socket.socket.__init__, socket.getaddrinfo, sys.stdout) == before


def test_what_a_file_prints_does_not_reach_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(write_project(tmp_path / "shop", {LIB: LIBRARY + "print('loaded')\n"}))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loaded\n")


def test_streams_made_by_a_comprehension_are_checked(tmp_path: Path) -> None:
    head, _, _ = MANIFEST.partition("    streams=[")
    text = head + '    streams=[Stream(key, mode="pull") for key in ("customers", "invoices")],\n)\n'
    files = {
        "connector.py": text,
        "src/api/webhooks/shop.py": GOOD["src/api/webhooks/shop.py"].replace("events", "customers"),
    }
    found = check(write_project(tmp_path / "shop", files)).diagnostics
    assert {(one.code, one.line) for one in found if one.code == "HW203"} == {("HW203", 22)}


def test_names_are_followed_through_aliases_and_constants(tmp_path: Path) -> None:
    code = LIBRARY + (
        "import headwater as hw\nfrom headwater import http as web, secrets as hidden\n\nFILES = 'https://files.shop.example'\n"
        "KIND = 'costumer'\n\n\nasync def more():\n    await web.blocking.get(FILES + '/x')\n"
        "    hw.ingest.canonical(KIND, hidden['tokn'], stream='none', idempotency_key='k')\n"
    )
    found = check(write_project(tmp_path / "shop", {LIB: code})).diagnostics
    assert [(one.code, one.line) for one in found] == [
        ("HW602", 22), ("HW601", 23), ("HW701", 23), ("HW702", 23),
    ]  # fmt: skip


def test_the_standard_library_secrets_are_not_ours(tmp_path: Path) -> None:
    code = "import secrets\n\n\ndef draw(settings):\n    return secrets.token_hex(), settings['free']\n"
    assert check(write_project(tmp_path / "shop", {"src/lib/draw.py": code})).lines() == []


def test_helpers_with_a_leading_underscore_are_no_routes(tmp_path: Path) -> None:
    files = {"src/api/sync/_shared.py": "LIMIT = 3\n", "src/api/sync/__init__.py": "", "src/api/webhooks/_x.py": ""}
    assert check(write_project(tmp_path / "shop", files)).lines() == []


def test_own_types_may_be_emitted(tmp_path: Path) -> None:
    files = {
        "src/records.py": "from headwater import Canonical\n\n\nclass Parcel(Canonical):\n    id: str\n\n\n"
        "class _Base(Canonical):\n    id: str\n\n\nSCHEMAS = {'crate': {'type': 'object'}}\n",
        CUSTOMERS: GOOD[CUSTOMERS].replace('"customer"', '"parcel"'),
        "src/api/sync/invoices.py": SYNC.replace("{stream}", "invoices").replace('"customer"', '"crate"'),
    }
    report = check(write_project(tmp_path / "shop", files))
    assert report.lines() == []
    assert report.project is not None
    assert {"parcel", "crate", "customer"} <= set(report.project.types)
    assert "_base" not in report.project.types


def test_remote_references_of_a_schema_are_refused(tmp_path: Path) -> None:
    text = manifest(('"region": {"type": "string"}', '"region": {"$ref": "https://example.com/schema.json"}'))
    (found,) = check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics
    assert found.code == "HW501"
    assert "https://example.com/schema.json" in found.message


@pytest.mark.parametrize(
    "value", ["[]", "'text'", "7", "None", "{'properties': []}", "{'type': 'object', 'properties': 3}"]
)
def test_settings_of_any_shape_are_survived(value: str, tmp_path: Path) -> None:
    start, end = MANIFEST.index("settings={"), MANIFEST.index('        test="setup')
    text = MANIFEST[:start] + f"settings={value},\n" + MANIFEST[end:]
    codes = {one.code for one in check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics}
    assert codes & {"HW108", "HW501", "HW502"}


@pytest.mark.parametrize(
    "name", [one.name for one in fields(Stream)] + ["streams", "webhooks", "connection", "permissions"]
)
def test_a_field_of_the_wrong_type_is_a_diagnostic_and_no_crash(name: str, tmp_path: Path) -> None:
    other = {"key": "name", "name": "key"}
    if name in {one.name for one in fields(Stream)}:
        given = f'key="customers", mode="poll", schedule="* * * * *", {name}=object()'.replace(
            f"{other.get(name, '')}=None", ""
        )
        parts = {part.split("=")[0].strip(): part for part in given.split(", ")}
        text = manifest(
            ('Stream("customers", mode="poll", schedule="*/15 * * * *")', f"Stream({', '.join(parts.values())})")
        )
    else:
        text = MANIFEST + f"import dataclasses\nconnector = dataclasses.replace(connector, {name}=object())\n"
    found = check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics
    assert "HW108" in {one.code for one in found}
    assert any(f"`{name}` of" in one.message for one in found)


@pytest.mark.parametrize(
    "content", ["x = '\0'", "(" * 5000, "-" * 100_000 + "1", "\ufeffx = 'é", "return 1", "x = " + "9" * 5000]
)
def test_files_that_are_no_python_are_diagnostics(content: str, tmp_path: Path) -> None:
    found = check(write_project(tmp_path / "shop", {LIB: LIBRARY + content})).diagnostics
    assert {(one.code, one.path) for one in found} == {("HW102", LIB)}


def test_a_folder_that_is_not_there_is_a_diagnostic(tmp_path: Path) -> None:
    report = check(tmp_path / "nowhere")
    assert [one.code for one in report.diagnostics] == ["HW101"]
    assert "There is no folder" in report.diagnostics[0].message


def test_the_report_is_json(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop", BROKEN["HW204"].files)
    report = json.loads(json.dumps(check(folder).as_json()))
    assert (report["ok"], report["connector"]) == (False, None)
    assert report["diagnostics"][0] == {
        "path": "connector.py",
        "line": 24,
        "code": "HW204",
        "severity": "error",
        "message": "The poll stream `customers` has no schedule.",
        "hint": 'Say when, such as schedule="*/15 * * * *".',
    }


def test_lines_are_found_from_where_the_check_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "shop", BROKEN["HW204"].files)
    monkeypatch.chdir(tmp_path)
    assert check(Path("shop")).lines()[0].startswith("shop/connector.py:24: HW204 The poll stream")
    monkeypatch.chdir(tmp_path / "shop")
    assert check(Path()).lines()[0].startswith("connector.py:24: HW204 ")


def test_warnings_are_marked_and_let_the_project_pass(tmp_path: Path) -> None:
    report = check(write_project(tmp_path / "shop", BROKEN["HW707"].files))
    assert ": HW707 warning: " in report.lines()[0]
    assert report.project is not None
    assert (len(report.errors), len(report.warnings)) == (0, 1)


def test_a_failed_check_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    check(write_project(tmp_path / "shop", BROKEN["HW107"].files))
    assert not [name for name in set(sys.modules) - before if name.startswith("_headwater_projects.")]


def test_every_field_of_the_catalog_has_a_known_kind_and_a_default_in_its_bounds() -> None:
    for part in (Connector, Connection, Permissions, Stream, Webhooks):
        assert {str(one.type) for one in fields(part)} <= set(KINDS)
    for part, bounds in ((Stream, STREAM_BOUNDS), (Webhooks, WEBHOOKS_BOUNDS)):
        defaults = {one.name: one.default for one in fields(part)}
        for name, (lowest, highest) in bounds.items():
            assert defaults[name] is None or lowest <= defaults[name] <= highest


@pytest.mark.parametrize(
    ("url", "pattern", "permitted"),
    [
        ("https://api.shop.example/v1", "https://api.shop.example/*", True),
        ("https://API.shop.example", "https://api.shop.example/*", True),
        ("http://api.shop.example/", "https://api.shop.example/*", False),
        ("https://api.shop.example:444/", "https://api.shop.example/*", False),
        ("https://eu.shop.example/", "https://*.shop.example/*", True),
        ("https://shop.example/", "https://*.shop.example/*", False),
        ("https://eu.shop.example.evil.example/", "https://*.shop.example/*", False),
        ("https://\0.shop.example/", "https://*.shop.example/*", True),
        ("https://\0.shop.example/", "https://eu.shop.example/*", True),
        ("https://\0.shop.example/", "https://api.other.example/*", False),
        ("https://\0/v1", "https://api.shop.example/*", True),
        ("https://api-\0.shop.example", "https://api.shop.example/*", False),
    ],
)
def test_a_url_is_permitted_when_a_run_could_make_it_fit(url: str, pattern: str, permitted: bool) -> None:
    address = url_address(url)
    assert address is not None
    assert is_permitted(address, [pattern]) is permitted


@pytest.mark.parametrize(
    ("pattern", "codes"),
    [
        ("{settings.region}/*", set()),
        ("{settings.regio}/*", {"HW603"}),
        ("{settings.api_key}/*", {"HW603"}),
        ("{settings.region}", {"HW603"}),
        ("https://*/*", {"HW603"}),
        ("*://api.shop.example/*", set()),
        ("https://api.shop.example:8443/*", set()),
        ("ftp://api.shop.example/*", {"HW603"}),
        ("http://10.0.0.7/*", {"HW605"}),
        ("http://[::1]:8080/*", {"HW605"}),
    ],
)
def test_permissions_are_patterns_or_settings(pattern: str, codes: set[str], tmp_path: Path) -> None:
    text = manifest(("https://api.shop.example/*", f'https://api.shop.example/*", "{pattern}'))
    found = check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics
    assert {one.code for one in found} == codes


def test_a_permission_by_a_setting_covers_the_settings_default(tmp_path: Path) -> None:
    text = manifest(
        ('"region": {"type": "string"}', '"region": {"type": "string", "default": "https://api.shop.example"}'),
        ("https://api.shop.example/*", "{settings.region}/*"),
    )
    assert check(write_project(tmp_path / "shop", {"connector.py": text})).lines() == []


@pytest.mark.parametrize("field", ["token_url", "revoke_url"])
def test_tokens_are_asked_for_and_withdrawn_only_where_the_connector_may_call(field: str, tmp_path: Path) -> None:
    urls = {name: f"https://api.shop.example/{name}" for name in ("authorize_url", "token_url", "revoke_url")}
    declared = {**urls, "client_id": "region", "client_secret": "api_key"}
    mended = manifest(('test="setup/test_connection"', f'test="setup/test_connection", oauth={declared!r}'))
    assert check(write_project(tmp_path / "good", {"connector.py": mended})).lines() == []
    text = mended.replace(urls[field], "https://evil.example/x")
    (found,) = check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics
    assert found.code == "HW801"
    assert "`https://evil.example/x` is permitted by no pattern" in found.message


def test_no_missing_line_crashes_the_check(tmp_path: Path) -> None:
    for name, content in GOOD.items():
        lines = content.splitlines(keepends=True)
        for number in range(len(lines)):
            text = "".join(lines[:number] + lines[number + 1 :])
            report = check(write_project(tmp_path / "shop", {name: text}))
            assert (report.project is None) == bool(report.errors)


def test_keys_that_cannot_be_hashed_are_diagnostics(tmp_path: Path) -> None:
    text = manifest(('Stream("customers", mode="poll"', "Stream(['customers'], mode=['poll']"))
    codes = {one.code for one in check(write_project(tmp_path / "shop", {"connector.py": text})).diagnostics}
    assert codes == {"HW108", "HW302", "HW702"}
