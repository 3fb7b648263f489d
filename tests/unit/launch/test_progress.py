"""What a person sees while a run goes on."""

from __future__ import annotations

import io
from typing import Any

from sppo.launch.progress import Progress


def progress() -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(10, out), out


def test_refusals_dead_letters_and_warnings_appear_once_and_counted() -> None:
    shown, out = progress()
    with shown:
        for n in range(3):
            shown.event(
                {
                    "kind": "refusal",
                    "uid": f"train-{n:09d}",
                    "reason": "score() returned 3 numbers for 4 texts",
                }
            )
        shown.event({"kind": "dead", "uid": "train-000000000", "reason": "no answer", "count": 2})
        shown.event(
            {"kind": "warning", "topic": "ess", "text": "effective sample size 0.31 at step 4"}
        )
        shown.event({"kind": "warning", "topic": "ess", "text": "below a half, 0.29 at step 5"})
        state = shown.state()
    assert out.getvalue().splitlines() == [
        "refused, tried again: train-000000000: score() returned 3 numbers for 4 texts",
        "given up: train-000000000: no answer",
        "warning: effective sample size 0.31 at step 4",
        "refused, tried again 2 more times: train-000000002: score() returned 3 numbers for 4 "
        "texts",
        "given up once more: train-000000000: no answer",
        "warning once more: below a half, 0.29 at step 5",
    ]
    assert state["events"] == {"dead": 2, "refusal": 3, "warning": 2}
    assert state["last_warning"] == "below a half, 0.29 at step 5"


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_terminal_that_is_gone_does_not_end_the_run() -> None:
    record: dict[str, Any] = {"step": 1, "reward_mean": 0.5, "staleness_mean": 0.0}
    with Progress(10, Gone()) as shown:
        shown.note("starting ...")
        shown.event({"kind": "step", "record": record})
        assert shown.state()["step"] == 1


def test_a_checkpoint_that_is_waited_for_says_how_far_it_is_now_and_then() -> None:
    shown, out = progress()
    with shown:
        shown.event({"kind": "phase", "phase": "saving"})
        for seconds in (1, 9, 10, 15, 30):
            gone = {"written": seconds * 1e9, "nbytes": 91e9, "seconds": seconds}
            shown.event({"kind": "saving", "step": 40} | gone)
        assert shown.state()["phase"] == (
            "writing the checkpoint of step 40: 30.0 of 91.0 GB, 1:01 left"
        )
    assert out.getvalue().splitlines() == [
        "saving ...",
        "writing the checkpoint of step 40: 10.0 of 91.0 GB, 1:21 left",
        "writing the checkpoint of step 40: 30.0 of 91.0 GB, 1:01 left",
    ]


def test_for_whom_the_learner_waits_and_what_a_judge_has_counted_is_shown() -> None:
    shown, out = progress()
    record: dict[str, Any] = {
        "step": 1, "reward_mean": None, "staleness_mean": 0.0,
        "scorer_counts": {"calls": 1234, "cached": 80, "retries": 0, "prompt_tokens": 40000},
    }  # fmt: skip
    text = "the learner has waited 10 s for 2 of 8 groups: 2 are with the scorer llm-judge"
    with shown:
        shown.event({"kind": "waiting", "text": text})
        assert shown.state()["phase"] == text
        shown.event({"kind": "step", "record": record})
        state = shown.state()
    said, line = out.getvalue().splitlines()
    assert said == text
    assert "scorer 1,234 calls, 80 cached, 40,000 prompt tokens" in line
    assert (state["phase"], state["scorer_counts"]["calls"]) == ("training", 1234)


def test_what_takes_long_says_how_long_and_what_it_took_the_last_time() -> None:
    out = io.StringIO()
    with Progress(10, out, {"evaluating": "200 questions"}) as shown:
        shown.event({"kind": "phase", "phase": "loading the model"})
        shown.event({"kind": "phase", "phase": "evaluating"})
        record = {"step": 0, "accuracy": 0.5, "n": 198, "win_rate": None}
        shown.event({"kind": "eval", "record": record})
        shown.event({"kind": "phase", "phase": "training"})
        shown.event({"kind": "phase", "phase": "evaluating"})
        state = shown.state()
    assert out.getvalue().splitlines() == [
        "loading the model ...",
        "evaluating (200 questions) ...",
        "held-out accuracy after step 0: 0.500 of 198",
        "evaluating (198 questions, 0 s the last time) ...",
    ]
    assert (state["held_out_accuracy"], state["held_out_step"]) == (0.5, 0)
