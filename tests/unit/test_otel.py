from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from sppo import otel
from sppo.errors import ConfigError, SppoError
from tests.unit.test_spans import line

WHOLE = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Takes what is sent over OTLP."""
    taken: list[bytes] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            taken.append(gzip.decompress(body) if packed else body)
            self.send_response(200 if len(taken) == 1 else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Taker)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield taken
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_collector_gets_a_span_of_each_group_with_its_stages_in_it(
    collector: list[bytes],
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    otel.send(otel.made([line(1, WHOLE, WHOLE)], "mine"))
    (body,) = collector
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["sppo.run"] == "mine"
    found = resource.scope_spans[0].spans
    groups = [span for span in found if span.name == "group"]
    assert [(s.start_time_unix_nano, s.end_time_unix_nano) for s in groups] == [
        (1_000_000_000, 14_000_000_000)
    ] * 2
    stages = [span for span in found if span.parent_span_id == groups[0].span_id]
    assert [span.name for span in stages][1:3] == ["sample", "score"]
    assert {span.trace_id for span in stages} == {groups[0].trace_id}
    assert len(found) == 2 * 8


def test_what_a_collector_refuses_is_told(collector: list[bytes]) -> None:
    collector.append(b"one before")  # it takes the first alone
    with pytest.raises(SppoError, match=r"0 of 8 spans were sent.*OTEL_EXPORTER_OTLP_ENDPOINT"):
        otel.send(otel.made([line(1, WHOLE)], "mine"))


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    otel.check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sppo\[otel\]'"):
        otel.check()
