"""The life of each group (`sppo.spans`) as OpenTelemetry spans, sent to a collector over OTLP."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from sppo import spans
from sppo.errors import ConfigError, SppoError

AT_ONCE = 500
"""Spans in one request."""


def check() -> None:
    """Raises ConfigError if the packages are not installed."""
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(f"--otlp needs {package}: pip install 'sppo[otel]'")


def made(lines: Sequence[Mapping[str, Any]], run: str) -> list[Any]:
    """A span for each group, from issued to trained, with one for each stage in it."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import set_span_in_context

    kept = InMemorySpanExporter()
    resource = Resource.create({"service.name": "sppo", "sppo.run": run})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("sppo")
    for life in spans.lives(lines):
        about = {"sppo.uid": life.uid, "sppo.generator": life.generator, "sppo.step": life.step}
        whole = tracer.start_span("group", start_time=_ns(life.moments[0]), attributes=about)
        for name, begin, end in life.stages():
            stage = tracer.start_span(name, set_span_in_context(whole), start_time=_ns(begin))
            stage.end(_ns(end))
        whole.end(_ns(life.trained))
    return list(kept.get_finished_spans())


def send(found: Sequence[Any]) -> None:
    """To where OTEL_EXPORTER_OTLP_ENDPOINT says. Raises SppoError if they do not arrive."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    exporter = OTLPSpanExporter()
    for at in range(0, len(found), AT_ONCE):
        if exporter.export(found[at : at + AT_ONCE]) is not SpanExportResult.SUCCESS:
            raise SppoError(
                f"{at} of {len(found)} spans were sent: no collector takes them; set "
                "OTEL_EXPORTER_OTLP_ENDPOINT to one that speaks OTLP over HTTP"
            )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
