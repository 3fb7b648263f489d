"""examples/scorers/math.toml: its settings, and its rows scored."""

from __future__ import annotations

import json
from pathlib import Path

from sppo.config import load
from sppo.scorer import calls
from sppo.scorer.base import SCORERS, check_options

EXAMPLES = Path(__file__).parents[4] / "examples" / "scorers"


def test_the_example_is_scored() -> None:
    run = load(str(EXAMPLES / "math.toml"))
    scorer, column = run.scorer, run.task.answer
    check_options(scorer.name, scorer.options)
    target = SCORERS[scorer.name]
    assert isinstance(target, str)
    made = calls.load(scorer.name, target, scorer.options)
    answers = [r"\boxed{80\text{ km}}", r"\boxed{3, -3}", r"\boxed{x \le 3}", "It is 0.375."]
    rows = [json.loads(line) for line in (EXAMPLES / "math.jsonl").read_text().splitlines()]
    for row, answer in zip(rows, answers, strict=True):
        request = calls.Request(
            uid="1",
            question=row["question"],
            completions=[answer, "7"],
            data=row | {"answer": row[column]},
        )
        (reply,) = made.call([request])
        assert reply["rewards"] == [1, 0]
