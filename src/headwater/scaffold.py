"""A new connector project from a template: it passes its check and its own tests as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from headwater.errors import UsageError, near_miss

TEMPLATES = ("poll", "poll+webhook")
DEFAULT_TEMPLATE = "poll+webhook"
KEY_CHARACTERS_MAX = 63
NAME_CHARACTERS_MAX = 200

_FOLDER = Path(__file__).parent / "templates"
_COMMON = "common"
_SUFFIX = ".tmpl"  # keeps linters, importers and test collectors away from what is not Python yet
_KEY = re.compile(rf"[a-z][a-z0-9_]{{0,{KEY_CHARACTERS_MAX - 1}}}")


def init(
    folder: Path, *, template: str = DEFAULT_TEMPLATE, key: str | None = None, name: str | None = None
) -> list[Path]:
    """Write a new project into `folder` and give the files that were written, in their order.

    The key is made of the folder's name where none is given, the name of the key. Raises `UsageError`, with nothing
    written, for an unknown template, an unusable key or name, and where a file of the project is there already.
    """
    if template not in TEMPLATES:
        raise UsageError(
            f"There is no template `{template}`.",
            hint=near_miss(template, TEMPLATES) or f"The templates are {' and '.join(TEMPLATES)}.",
        )
    key = _checked_key(key if key is not None else _key_of(folder))
    name = _checked_name(name if name is not None else key.replace("_", " ").capitalize())
    files = _rendered(template, key, name)
    taken = sorted(path for path in files if (folder / path).exists() or (folder / path).is_symlink())
    if taken:
        raise UsageError(f"{folder / taken[0]} is there already.", hint="Choose an empty folder; nothing was written.")
    return [_write(folder / path, text) for path, text in files.items()]


def _rendered(template: str, key: str, name: str) -> dict[str, str]:
    words = {"key": key, "name": name}
    files: dict[str, str] = {}
    for part in (_COMMON, template):
        for path in sorted((_FOLDER / part).rglob(f"*{_SUFFIX}")):
            target = path.relative_to(_FOLDER / part).as_posix().removesuffix(_SUFFIX)
            files[target.replace("KEY", key).replace("gitignore", ".gitignore")] = Template(
                path.read_text(encoding="utf-8")
            ).substitute(words)
    return dict(sorted(files.items()))


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive: a file that appeared since it was looked for is not overwritten either.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _key_of(folder: Path) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return words.removeprefix("headwater_").removeprefix("connector_")


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"The key `{key}` is ill-formed.",
            hint=f"A key is a lower-case letter, then letters, digits and underscores, {KEY_CHARACTERS_MAX} at most.",
        )
    return key


def _checked_name(name: str) -> str:
    # The name stands in a Python string, in a docstring and in Markdown: what could end any of them is refused.
    if not 0 < len(name.strip()) <= NAME_CHARACTERS_MAX or not name.isprintable() or set(name) & set('"\\{}`'):
        raise UsageError(
            f"The name {name!r} is not usable.",
            hint=f'Write 1 to {NAME_CHARACTERS_MAX} printable characters, without ", \\, {{, }} and backquotes.',
        )
    return name.strip()
