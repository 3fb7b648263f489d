"""examples/scorers/llm-judge: its run, rubric and labels, with a judge on a real socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sppo.bench import judge as bench
from sppo.config import load
from sppo.scorer.base import check_options, checked
from sppo.scorer.judge.scorer import LlmJudge
from sppo.types import ScoreRequest
from tests.unit.scorer.judge.fake import judges, prompt, serve

REPOSITORY = Path(__file__).parents[4]
EXAMPLE = REPOSITORY / "examples" / "scorers" / "llm-judge"


def test_the_example_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # its rubric is named from there
    scorer = load(str(EXAMPLE / "run.toml")).scorer
    check_options(scorer.name, scorer.class_options)
    questions = [json.loads(line) for line in (EXAMPLE / "prompts.jsonl").read_text().splitlines()]
    texts = ["Canberra.", "Sydney.", "A city", "I do not know."]
    request = ScoreRequest(
        uid="1", question=questions[0]["question"], completions=texts, data=questions[0]
    )

    async def go() -> None:
        async with serve(judges(lambda _: "C")) as fake:
            judge = LlmJudge(**scorer.class_options | {"url": fake.url})
            await judge.setup()
            reply = await judge.score(request)
            await judge.close()
        scores = checked("llm-judge", request, reply)
        assert scores.preferences is not None
        assert len(fake.bodies) == 8
        assert prompt(fake.bodies[0]).startswith("Two answers to the same request follow.")

    asyncio.run(go())


def test_its_labels_are_pairs() -> None:
    assert [pair.label for pair in bench.read(EXAMPLE / "labelled.jsonl")] == [
        "a", "b", "tie", "a", "a", "a",
    ]  # fmt: skip
