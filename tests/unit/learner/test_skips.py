"""What becomes of the tickets of steps that were left out, and when these end the run."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.errors import SppoError
from sppo.learner.skips import Skips

NAN = "the gradient norm is nan"


def step(n: int, *tickets: str, skipped: str | None = None) -> dict[str, Any]:
    return {"step": n, "tickets": list(tickets), "skipped": skipped}


def test_tickets_that_no_step_trained_are_lost_with_the_figure() -> None:
    steps = [step(1, "a", "b"), step(2, "c", "d", skipped=NAN)]
    assert Skips(3).sort_out(steps) == {"c": f"step 2: {NAN}", "d": f"step 2: {NAN}"}
    assert [s["tickets"] for s in steps] == [["a", "b"], []]


def test_over_several_epochs_each_ticket_is_named_by_the_first_step_that_trained_it() -> None:
    steps = [
        step(1, "a", skipped=NAN), step(2, "b"),
        step(3, "b"), step(4, "a"),
        step(5, "a", skipped=NAN), step(6, "c", skipped=NAN),
    ]  # fmt: skip
    assert Skips(3).sort_out(steps) == {"c": f"step 6: {NAN}"}
    assert [s["tickets"] for s in steps] == [[], ["b"], [], ["a"], [], []]


def test_a_batch_that_is_skipped_in_every_epoch_counts_once() -> None:
    skips = Skips(2)
    skips.sort_out([step(n, "a", "b", skipped=NAN) for n in (1, 2, 3)])
    skips.check()
    skips.sort_out([step(n, "c", "d", skipped=NAN) for n in (4, 5, 6)])
    with pytest.raises(SppoError, match="2 optimizer steps in a row"):
        skips.check()


def test_only_so_many_in_a_row_end_the_run_with_what_to_look_at() -> None:
    skips = Skips(3)
    skips.sort_out([step(1, "a", skipped=NAN), step(2, "b", skipped=NAN)])
    skips.check()
    skips.sort_out([step(3, "c"), step(4, "d", skipped=NAN)])
    skips.check()
    skips.sort_out([step(5, "e", skipped=NAN)])
    skips.check()
    skips.sort_out([step(6, "f", skipped="the loss is inf")])
    with pytest.raises(
        SppoError,
        match=r"3 optimizer steps in a row .*step 6: the loss is inf; look at .*max_reward.*lr",
    ):
        skips.check()
