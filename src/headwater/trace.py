"""Spans of what is carried out, for OpenTelemetry where somebody listens; else nothing, at the cost of one look.

headwater.run ──> headwater.page, one for each that became durable          headwater.delivery

They are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` says (OTLP over HTTP), as the variables of the OpenTelemetry
specification ask. A span names connection, stream and run; it holds nothing that a provider sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headwater.clock import to_micros
from headwater.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OTelSpan
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PREFIX = "headwater."

_tracer: Tracer | None = None


class Span:
    """What is carried out inside the block; this one is for nobody."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def tell(self, **facts: object) -> None:
        """Say more of it; what is None is left out."""


class _Told(Span):
    def __init__(self, tracer: Tracer, name: str, facts: Mapping[str, object]) -> None:
        self._manager = tracer.start_as_current_span(
            name, attributes=_attributes(facts), record_exception=False, set_status_on_exception=False
        )
        self._span: OTelSpan | None = None

    def __enter__(self) -> Span:
        self._span = self._manager.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.tell(error=kind.__name__)  # its message may hold what a provider sent
        self._manager.__exit__(None, None, None)

    def tell(self, **facts: object) -> None:
        from opentelemetry.trace import StatusCode

        assert self._span is not None, "told inside the block"
        self._span.set_attributes(_attributes(facts))
        if facts.get("error"):
            self._span.set_status(StatusCode.ERROR, str(facts["error"]))


_NOBODY = Span()


def span(name: str, **facts: object) -> Span:
    """A span around a block, as a child of the one around it."""
    return _NOBODY if _tracer is None else _Told(_tracer, name, facts)


def note(name: str, *, start: datetime, end: datetime, **facts: object) -> None:
    """A span that is over, as a child of the one around it."""
    if _tracer is not None:
        made = _tracer.start_span(name, start_time=to_micros(start) * 1000, attributes=_attributes(facts))
        made.end(to_micros(end) * 1000)


def use(tracer: Tracer | None) -> None:
    """Give spans to this tracer from now on; None: to nobody."""
    global _tracer  # noqa: PLW0603  a process has one
    _tracer = tracer


def set_up(environ: Mapping[str, str], *, version: str) -> bool:
    """Export spans where the environment says; False where it says nothing. `StartError` without the extra."""
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartError(
            "Traces need OpenTelemetry, which is not installed.",
            hint=f"Install it: pip install 'headwater[otel]', or unset {ENDPOINTS[0]}.",
            detail=str(error),
        ) from error
    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or "headwater"})
    provider = TracerProvider(resource=resource.merge(Resource({"service.version": version})))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider.get_tracer("headwater", version))
    return True


def _attributes(facts: Mapping[str, object]) -> dict[str, Any]:
    return {
        PREFIX + name: value if isinstance(value, (bool, int, float)) else str(value)
        for name, value in facts.items()
        if value not in (None, "")
    }
