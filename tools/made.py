"""The pages of the reference that are made of the code: `make docs` writes them, and a test holds them to it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import of_api
import of_check
import of_code
import of_commands
import of_metrics

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PAGES: Mapping[Path, Callable[[], str]] = {
    REFERENCE / "manifest.md": of_code.manifest,
    REFERENCE / "configuration.md": of_code.configuration,
    REFERENCE / "routes.md": of_code.routes,
    REFERENCE / "types.md": of_code.types,
    REFERENCE / "testing.md": of_code.testing,
    REFERENCE / "api.md": of_api.api,
    REFERENCE / "cli.md": of_commands.cli,
    REFERENCE / "metrics.md": of_metrics.metrics,
    **{of_check.PAGES / f"{name}.md": partial(of_check.page, name) for name in of_check.BROKEN},
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        page.write_text(make())
