from __future__ import annotations

import math

from sppo.track import shape
from tests.unit.track.conftest import sample


def test_figures_are_the_numbers_of_a_record_by_its_names() -> None:
    record = {
        "step": 3, "time": 1.0, "tickets": ["train-0"], "loss": 0.5, "grad_clipped": True,
        "kl": None, "epoch": "abc", "skipped": "inf", "grad_norm": math.inf,
        "scorer_counts": {"calls": 12},
    }  # fmt: skip
    assert shape.figures(record) == {"loss": 0.5, "grad_clipped": 1.0, "scorer_counts/calls": 12.0}


def test_an_evaluation_has_its_interval() -> None:
    record = {"step": 20, "accuracy": 0.3, "win_rate": None, "interval": [0.2, 0.4], "n": 200}
    assert shape.evaluation(record) == {
        "eval/accuracy": 0.3, "eval/n": 200.0, "eval/interval_low": 0.2, "eval/interval_high": 0.4,
    }  # fmt: skip
    assert shape.evaluation({"step": 0, "interval": None}) == {}


def test_each_completion_is_a_row() -> None:
    rows = shape.rows([sample(7, "train", "two")])
    assert dict(zip(shape.COLUMNS, rows[0], strict=True)) == {
        "step": 7, "why": "best", "prompt": "user: 1 + 1?", "completion": "two", "score": 1.0,
        "length": 1, "finish_reason": "stop", "version": "A:0", "generator": "generator-0",
        "details": "", "uid": "train-7",
    }  # fmt: skip
    assert len(rows) == 2
    said = {**sample(7, "train", "two"), "details": [{"why": "right"}, {}]}
    assert shape.rows([said])[0][9] == '{"why": "right"}'
