"""A project → diagnostics: the mapping of streams to routes, and all that they use, proved before anything runs.

It needs no network and no secret. It finds all problems at once: what one broken file hides is looked for in its text.
"""

from __future__ import annotations

from pathlib import Path

from headwater.bundle import Bundle, survey
from headwater.check import code
from headwater.check.diagnostic import Findings, Report
from headwater.check.manifest import check_manifest
from headwater.check.oauth import check_oauth
from headwater.check.permissions import check_permissions
from headwater.check.records import check_types
from headwater.check.routes import check_routes
from headwater.check.settings import check_settings
from headwater.check.streams import check_streams
from headwater.check.subject import Subject, read_facts
from headwater.check.usage import check_usage
from headwater.errors import CheckFailedError
from headwater.project import MANIFEST, Project, assemble, is_registered, register, unload


def check(path: Path) -> Report:
    """Every problem of the project at `path`, and the loaded project where none of them is an error.

    Its code is imported, without network; nothing is written.
    """
    try:
        bundle = survey(path)
    except CheckFailedError as error:
        found = Findings()
        found.add(code.NO_MANIFEST, MANIFEST, 1, error.message, error.hint)
        return Report(path=path, diagnostics=found.sorted(), project=None)
    return check_bundle(bundle, path)


def check_bundle(bundle: Bundle, path: Path) -> Report:
    """`check` for files that were read already; diagnostics are told as of `path`."""
    found = Findings()
    for refused in bundle.refused:
        found.add(code.FILE_REFUSED, refused.path, 1, refused.reason)
    project = _proved(bundle, path, found)
    return Report(path=path, diagnostics=found.sorted(), project=project)


def _proved(bundle: Bundle, path: Path, found: Findings) -> Project | None:
    was_loaded = is_registered(bundle)
    source = register(bundle)
    subject = Subject(source=source, found=found, facts=read_facts(bundle, found))
    places = check_manifest(subject)
    if places is not None:
        check_streams(subject, places)
        check_settings(subject, places)
        check_permissions(subject, places)
        check_oauth(subject, places)
    check_types(subject)
    check_routes(subject, places)
    check_usage(subject)
    if not found.has_errors():
        return assemble(source, path)
    # A version that runs already keeps its modules; one that was loaded only to be checked leaves nothing behind.
    if not was_loaded:
        unload(source.package)
    return None
