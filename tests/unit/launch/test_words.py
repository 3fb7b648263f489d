"""Each reason is said once, then counted."""

from __future__ import annotations

from sppo.launch.words import AGAIN_S, REASONS, Words, counted, takes
from tests import makers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_reason_is_said_once_and_then_counted_at_intervals() -> None:
    clock = Clock()
    words = Words(clock)
    assert (
        words.say("dead", "train-000000001: no answer in 5 s\nmore")
        == "given up: train-000000001: no answer in 5 s"
    )
    assert [words.say("dead", f"train-{i:09d}: no answer in 5 s") for i in range(3)] == ["", "", ""]
    assert words.due() == []
    clock.now = AGAIN_S
    assert words.due() == ["given up 3 more times: train-000000002: no answer in 5 s"]
    assert words.due() == []
    assert words.say("dead", "another", count=1) == "given up: another"
    words.say("dead", "another")
    assert words.due(all_of_it=True) == ["given up once more: another"]
    assert words.counts == {"dead": 6, "refusal": 0, "warning": 0}


def test_reasons_that_all_differ_do_not_fill_the_terminal() -> None:
    words = Words(Clock())
    said = [words.say("refusal", f"cannot parse {'x' * i!r}") for i in range(100)]
    assert sum(bool(line) for line in said) == REASONS + 1
    assert words.due(all_of_it=True) == [
        f"refused, tried again {100 - REASONS - 1} more times: for other reasons, which are in "
        f"events.jsonl"
    ]


def test_the_same_words_of_two_kinds_are_two_things() -> None:
    words = Words(Clock())
    assert words.say("refusal", "late")
    assert words.say("dead", "late")


def test_what_a_scorer_counts_is_said_without_what_is_nothing() -> None:
    assert counted({"calls": 1234, "prompt_tokens": 5.0, "waits": 0}) == (
        "scorer 1,234 calls, 5 prompt tokens"
    )
    assert counted(None) == counted({"calls": 0}) == ""


def test_what_takes_long_is_said_as_far_as_it_is_known() -> None:
    config = makers.run_config(task={"held_out": 0}, generator={"start_timeout_s": 90})
    assert list(takes(config)) == ["waiting for generators"]
    assert takes(config)["waiting for generators"].endswith("start_timeout_s = 90 s")
    assert takes(makers.run_config(task={"held_out": 5}))["evaluating"] == "5 questions"
