"""`llm-judge` on real parts: vLLM's own OpenAI-compatible server with the default model, and our
scorer service before it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sppo import models
from sppo.bench import judge as bench
from sppo.config import JudgeConfig, ModelConfig, ScorerConfig, load
from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.generators import vllm_check
from sppo.launch import preflight
from sppo.scorer.client import HttpScorer
from sppo.scorer.judge.scorer import LlmJudge
from sppo.scorer.service import Service
from sppo.types import ScoreRequest, Scores
from tests.unit.scorer.judge.fake import judges, longer, serve

MODEL = "smollm2-135m"
GROUP = ScoreRequest(
    uid="train-1",
    question="What is the capital of France?",
    completions=["The capital of France is Paris.", "I like trains.", "Paris", "Paris"],
    data={},
)
SMALL = replace(GROUP, completions=GROUP.completions[:2])

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with the default model on a CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "WARNING",
    }  # fmt: skip
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server",
             "--model", models.resolve(ModelConfig(name=models.PACKAGED)),
             "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port),
             "--enforce-eager", "--max-model-len", "2048", "--dtype", "float32"],
            stdout=file, stderr=subprocess.STDOUT, cwd=log.parent, env=os.environ | settings,
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            try:
                if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(30)


def judged(url: str, *requests: ScoreRequest, **options: Any) -> list[Any]:
    async def go() -> list[Any]:
        judge = LlmJudge(url=url, **({"model": MODEL, "max_tokens": 4} | options))
        await judge.setup()
        try:
            return await asyncio.gather(
                *(judge.score(each) for each in requests), return_exceptions=True
            )
        finally:
            await judge.close()

    return asyncio.run(go())


def test_pairs_are_judged_by_log_probs(vllm: str, tmp_path: Path) -> None:
    # Given a real model of 135M parameters, which is no good judge, with log-probs of its verdicts
    cache = str(tmp_path / "judge.sqlite3")
    first, second = judged(vllm, GROUP, GROUP, cache=cache, logprobs="required")
    # Then each pair that can be read has a probability of its own, the same whenever it is asked
    matrix = [value for row in first["preferences"] for value in row]
    known = [value for value in matrix if not math.isnan(value)]
    assert all(0 <= value <= 1 for value in known)
    assert len({round(value, 4) for value in known} - {0.0, 0.5, 1.0}) >= 2
    assert first["preferences"][2][3] == 0.5  # the same text
    # And a second life is answered from the file
    begun = time.monotonic()
    (again,) = judged("http://127.0.0.1:9", GROUP, cache=cache, logprobs="required")
    assert json.dumps(again) == json.dumps(second)
    assert time.monotonic() - begun < 2


def test_ratings_are_digits(vllm: str) -> None:
    (found,) = judged(vllm, SMALL, mode="rating")
    if isinstance(found, ScorerError):  # so small a model may not do as it is told
        assert "cannot be read" in str(found) or "none of" in str(found)
    else:
        assert all(0 <= reward <= 9 for reward in found["rewards"])


def test_a_model_that_is_not_served_is_named_with_what_is(vllm: str) -> None:
    (found,) = judged(vllm, GROUP, model="gpt-9")
    assert isinstance(found, ScorerRefused)
    assert all(words in str(found) for words in ("'gpt-9'", vllm, f"it serves {MODEL}"))


def test_bench_judge_measures_it(vllm: str) -> None:
    pair = bench.Pair(prompt=GROUP.question, a="Paris", b="I like trains.", label="a")
    found = bench.measure(JudgeConfig(url=vllm, model=MODEL, max_tokens=4), [pair], lambda _: None)
    assert (found.pairs, found.calls, found.failed) == (1, 2, 0)
    assert found.prompt_tokens > 200
    assert found.seconds > 0


def served(
    url: str, requests: Sequence[ScoreRequest], options: Mapping[str, Any], timeout_s: float
) -> list[Scores | BaseException]:
    """What our service answers, asked about all at once as a generator asks."""
    settings = ScorerConfig.model_validate(
        {"name": "llm-judge", "judge": {"url": url, "model": MODEL} | dict(options)}
    )
    service = Service(settings.name, options=settings.class_options, token="t", timeout_s=timeout_s)
    service.start()

    async def go() -> list[Scores | BaseException]:
        scorer = HttpScorer(lambda: [service.url], token="t", timeout_s=timeout_s, own_s=math.inf)
        try:
            return await asyncio.gather(
                *(scorer.score(each) for each in requests), return_exceptions=True
            )
        finally:
            await scorer.close()

    try:
        return asyncio.run(go())
    finally:
        service.stop()


def test_a_group_goes_through_our_service(vllm: str) -> None:
    (found,) = served(vllm, [SMALL], {"max_tokens": 4}, 60.0)
    assert isinstance(found, Scores), found
    assert found.preferences is not None
    assert found.preferences.shape == (2, 2)
    assert found.details is not None
    assert any(each["judge"] for each in found.details)


def test_a_slow_judge_is_waited_for_beyond_the_deadline_of_a_group() -> None:
    # Given a judge that takes 0.25 s with 16 at a time, and 32 groups at once, which take 1.5 s
    async def go() -> tuple[list[Scores | BaseException], int]:
        async with serve(judges(longer, 0.25)) as fake:
            requests = [
                ScoreRequest(uid=f"t-{n}", question="q", completions=["a" * n, "b" * (n + 1)],
                             data={"n": n})
                for n in range(1, 49)
            ]  # fmt: skip
            return await asyncio.to_thread(served, fake.url, requests, {}, 1.0), fake.most_at_once

    # When each has 1 s for a group
    found, at_once = asyncio.run(go())
    # Then none is late
    assert [type(each) for each in found] == [Scores] * 48
    assert at_once == 16


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", r"scorer\.judge\.url = .*cannot be reached.*is the judge running"),
        ("", r"scorer\.judge\.logprobs = 'required': .*gives no log-probs.*'auto' takes"),
    ],
)
def test_a_judge_that_is_not_there_or_gives_no_log_probs_is_told_before_vllm_is_looked_at(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_check, "beside", lambda _: pytest.fail("vLLM was started"))
    rows = Path(__file__).parents[2] / "examples" / "data" / "ultrafeedback.jsonl"

    async def go() -> None:
        async with serve(judges(longer)) as fake:
            judge = ["scorer.judge.model=m", f"scorer.judge.url={url or fake.url}"]
            judge += ["scorer.judge.logprobs=required", "sampling.completions=2"]
            judge += [f"task.name=jsonl:{rows}", "task.held_out=0"]
            run = load("ultrafeedback", judge, environment=False)
            await asyncio.to_thread(preflight.check, run, print)

    with pytest.raises(ConfigError, match=words) as said:
        asyncio.run(go())
    assert "\n" not in str(said.value)


def test_a_limit_reaches_the_generator_as_the_end_of_the_run() -> None:
    async def go() -> list[Scores | BaseException]:
        async with serve(judges(longer)) as fake:
            return await asyncio.to_thread(served, fake.url, [GROUP], {"max_calls": 3}, 5.0)

    (found,) = asyncio.run(go())
    assert isinstance(found, ScorerSpent)
    assert "scorer.judge.max_calls" in str(found)
