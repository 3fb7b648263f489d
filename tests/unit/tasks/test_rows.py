"""Rows and the tally of those that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.tasks.rows import Tally, Unusable, check_columns, column


def tally(rows: int, bad: int) -> Tally:
    found = Tally(setting="task.name = 'jsonl:q.jsonl'", rows=rows)
    for i in range(bad):
        found.leave_out(f"q.jsonl:{i + 1}", "no answer")
    return found


def test_numbers_at_the_edge_of_64_bits_are_carried() -> None:
    check_columns({"answer": [2**64 - 1, -(2**63), 1e308, None, {"x": True}], "é": "é"})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**64, r"column 'answer': .*64 bits.*as text"),
        ([{"y": -(2**63) - 1}], r"64 bits"),
        ("a\ud800", "half of a surrogate pair"),
        ({"\udfff": 1}, "half of a surrogate pair"),
        (float("inf"), "inf is no JSON number"),
    ],
)
def test_a_value_that_cannot_travel_is_named_with_its_column(value: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        check_columns({"question": "q", "answer": value})


def test_values_may_be_nested_a_hundred_deep_and_no_deeper() -> None:
    deep: list[Any] = []
    for _ in range(99):
        deep = [deep]
    check_columns({"answer": deep})
    with pytest.raises(Unusable, match="nested more than 100"):
        check_columns({"answer": [deep]})


def test_dots_lead_into_objects_unless_a_column_is_called_so() -> None:
    columns = {"reward_model": {"ground_truth": "4"}, "a.b": "5", "a": {"b": "6"}}
    assert column(columns, "reward_model.ground_truth", "task.answer") == "4"
    assert column(columns, "a.b", "task.answer") == "5"


@pytest.mark.parametrize("path", ["solution", "reward_model.style", "question.x"])
def test_a_column_that_is_missing_is_named_with_those_that_are_there(path: str) -> None:
    with pytest.raises(
        Unusable, match=rf"no column '{path}' \(task\.answer\); there are question, reward_model"
    ):
        column({"question": "q", "reward_model": {"ground_truth": "4"}}, path, "task.answer")


def test_a_few_bad_rows_are_counted_and_the_first_is_kept() -> None:
    found = tally(rows=10, bad=5)
    found.check()
    assert (found.bad, found.first) == (5, "q.jsonl:1: no answer")


@pytest.mark.parametrize(
    ("rows", "bad", "words"),
    [
        (10, 6, r"only 4 of 10 rows can be used; the first that cannot, q\.jsonl:1: no answer"),
        (3, 3, "none of 3 rows"),
        (0, 0, "holds no rows"),
    ],
)
def test_most_rows_bad_is_an_error_of_the_setting(rows: int, bad: int, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^task\.name = 'jsonl:q\.jsonl': .*{words}"):
        tally(rows, bad).check()
