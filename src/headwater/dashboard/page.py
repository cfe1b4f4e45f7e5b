"""How a page is sent: rendered with every value escaped, under a policy that lets nothing run but our own module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from headwater import verdict
from headwater.api.csrf import csrf_field
from headwater.dashboard.address import path as path_of
from headwater.dashboard.address import with_query
from headwater.dashboard.picture import legend, moment
from headwater.dashboard.tone import tone

HERE = Path(__file__).parent
STATIC_PATH = "/static"
STATIC_SECONDS = 365 * 24 * 3600
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A static file in memory; `url` changes with its content."""

    content: bytes
    media_type: str
    url: str


class Pages:
    """Renders templates and serves what they refer to."""

    def __init__(self) -> None:
        self._assets = {path.name: _asset(path) for path in sorted((HERE / "static").iterdir())}
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=lambda name: self._assets[name].url,
            legend=legend,
            path=path_of,
            csrf=csrf_field,
            with_query=with_query,
        )
        self._environment.filters.update(
            moment=moment,
            iso=_iso,
            tone=tone,
            duration=verdict.duration,
            number="{:,}".format,
            span=span,
            size=size,
            cell=cell,
        )

    def render(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page; each form that posts holds `{{ csrf() }}`."""
        text = self._environment.get_template(template).render(**({"csrf_field": csrf_field()} | values))
        return HTMLResponse(text, status_code=status, headers=dict(SECURITY_HEADERS))

    def static_route(self) -> Route:
        """The route of the static files."""

        async def static(request: Request) -> Response:
            asset = self._assets.get(request.path_params["name"])
            if asset is None:
                return Response(status_code=404, headers=dict(SECURITY_HEADERS))
            headers = {**SECURITY_HEADERS, "Cache-Control": f"public, max-age={STATIC_SECONDS}, immutable"}
            return Response(asset.content, media_type=asset.media_type, headers=headers)

        return Route(f"{STATIC_PATH}/{{name}}", static)


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    version = blake2b(content, digest_size=6).hexdigest()
    return Asset(content=content, media_type=MEDIA_TYPES[path.suffix], url=f"{STATIC_PATH}/{path.name}?v={version}")


def span(seconds: float | None) -> str:
    """How long something took: "40 ms", "1.2 s", then as `verdict.duration`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    return f"{seconds:.1f} s" if seconds < 10 else verdict.duration(seconds)


def cell(value: object) -> str:
    """A value of a table: instants in full, nothing for None."""
    return moment(value) if isinstance(value, datetime) else "" if value is None else str(value)


def size(count: int) -> str:
    """Bytes in the unit that a reader needs."""
    value = float(count)
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
