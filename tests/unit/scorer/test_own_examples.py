"""examples/scorers: functions and classes of a user, and a sum of them, run as they would."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.scorer.base import InlineScorer, check_options
from sppo.types import ScoreRequest, Scores

ROOT = Path(__file__).parents[3]
HERE = "examples.scorers"


def ask(name: str, **options: Any) -> Scores:
    async def once() -> Scores:
        scorer = InlineScorer(name, options=options, timeout_s=20)
        try:
            return await scorer.score(
                ScoreRequest(
                    uid="u",
                    question="2 + 2?",
                    completions=["it is 4", "5", "the sum is 4 , the"],
                    data={"answer": "4"},
                    finish_reasons=["stop", "length", "stop"],
                    lengths=[4, 9, 7],
                )
            )
        finally:
            await scorer.close()

    return asyncio.run(once())


def rewards(scores: Scores) -> list[float]:
    assert scores.rewards is not None
    return scores.rewards.tolist()


def test_a_function() -> None:
    assert rewards(ask(f"{HERE}.function:score")) == pytest.approx([0.997, -0.001, 0.994])


def test_a_function_of_the_whole_request() -> None:
    scores = ask(f"{HERE}.function:brief")
    assert scores.preferences is not None
    assert scores.preferences.tolist() == [[0.5, 1.0, 1.0], [0.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    assert scores.details == [{"tokens": n} for n in (4, 9, 7)]


def test_a_class_with_options_and_batches() -> None:
    scores = ask(f"{HERE}.overlap:Overlap", ignore=["the"])
    assert rewards(scores) == [1.0, 0.0, 1.0]


class _Rater(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"rating": len(asked["answer"])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def rater() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Rater)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/rate"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_class_that_asks_a_service(rater: str) -> None:
    assert rewards(ask(f"{HERE}.remote:Remote", url=rater)) == pytest.approx([0.7, 0.1, 1.8])


def test_a_configuration_of_compose() -> None:
    settings = config.load(str(ROOT / "examples/scorers/compose.toml"), environment=False)
    check_options(settings.scorer.name, settings.scorer.options)
    scores = ask(settings.scorer.name, **settings.scorer.options)
    assert rewards(scores) == pytest.approx(
        [1 + 0.997 / 2 - 0.008, -0.001 / 2 - 0.018, 1 + 0.994 / 2 - 0.014]
    )
