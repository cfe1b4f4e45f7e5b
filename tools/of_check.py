"""The example of each code of the check: the good project of the tests broken in one way, and what the check says."""

import difflib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from broken_projects import BROKEN, Broken
from headwater.check.check import check
from project_builder import GOOD, write_project

PAGES = Path(__file__).parent.parent / "docs" / "reference" / "check"
BEGIN, END = "## Example\n", "## How to mend it\n"


def page(name: str) -> str:
    """The page of a code with its example made anew; the rest of it is written by hand."""
    text = (PAGES / f"{name}.md").read_text()
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{_example(name)}\n{END}{rest.partition(END)[2]}"


def _example(name: str) -> str:
    broken = BROKEN[name]
    with tempfile.TemporaryDirectory() as folder:
        project = write_project(Path(folder) / "shop", broken.files)
        for link, target in broken.links.items():
            (project / link).symlink_to(target)
        said = [str(one) for one in check(project).diagnostics]
    return "\n".join([*_changes(broken), "```text", *said, "```", ""])


def _changes(broken: Broken) -> Iterator[str]:
    gone = {path for path, text in broken.files.items() if text is None}
    is_all_gone = gone >= set(GOOD)
    moved = {GOOD[path]: path for path in gone}
    for path, text in broken.files.items():
        if text is None:
            if not is_all_gone and GOOD[path] not in broken.files.values():
                yield f"`{path}` is missing.\n"
        elif text in moved:
            yield f"`{moved[text]}` is called `{path}`.\n"
        else:
            yield from (f'```diff title="{path}"', *_difference(GOOD.get(path, ""), text), "```\n")
    for link, target in broken.links.items():
        yield f"`{link}` is a link to `{target}`.\n"


def _difference(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]
