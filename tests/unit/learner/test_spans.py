from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sppo import spans
from sppo.learner.spans import Spans
from tests import makers


def step(n: int, uids: list[str]) -> dict[str, Any]:
    return {"step": n, "tickets": uids, "step_s": 2.0, "anchor_s": 0.5}


def group(uid: str) -> Any:
    return replace(makers.group(uid), times=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))


def test_each_step_has_a_line_with_its_groups_and_when_it_was_taken(tmp_path: Path) -> None:
    kept = Spans(tmp_path, clock=lambda: 100.0)
    kept.of_steps(
        [step(1, ["train-0"]), step(2, ["train-1"])], [group("train-0"), group("train-1")]
    )
    first, second = spans.read(tmp_path)
    assert (first["step"], first["trained"]) == (1, [95.0, 97.5])
    assert (second["step"], second["trained"]) == (2, [97.5, 100.0])
    assert second["groups"] == [
        {
            "uid": "train-1", "generator": "generator-0", "completions": 2, "tokens": 3,
            "times": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    ]  # fmt: skip
    kept.resume(1)
    assert [line["step"] for line in spans.read(tmp_path)] == [1]


def test_the_file_is_bounded(tmp_path: Path) -> None:
    kept = Spans(tmp_path, most_bytes=2000)
    for n in range(1, 60):
        kept.of_steps([step(n, ["train-0"])], [group("train-0")])
        assert (tmp_path / spans.NAME).stat().st_size <= 2000
    assert spans.read(tmp_path)[-1]["step"] >= 58
