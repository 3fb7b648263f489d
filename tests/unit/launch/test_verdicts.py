"""The tables of what follows from what has happened."""

from __future__ import annotations

from itertools import product

import pytest

from sppo.launch import verdicts
from sppo.launch.verdicts import BROKER_SILENCE_S, ROLES, STOP_TIMEOUT_S, Do, What, Who

ENDS = (What.RETURNED, What.RAISED)
CASES = list(product(What, Who, (False, True)))


@pytest.mark.parametrize(("what", "who", "stopping"), CASES)
def test_every_case_has_a_verdict(what: What, who: Who, stopping: bool) -> None:
    assert verdicts.role(what, who, stopping=stopping) in Do


def test_every_row_decides_some_case() -> None:
    def first(what: What, who: Who, stopping: bool) -> verdicts.Row:
        return next(
            row
            for row in ROLES
            if row.what is what and row.who in (None, who) and row.stopping in (None, stopping)
        )

    assert {id(first(*case)) for case in CASES} == {id(row) for row in ROLES}


@pytest.mark.parametrize("stopping", [False, True])
def test_the_run_is_over_when_the_learner_returns(stopping: bool) -> None:
    assert verdicts.role(What.RETURNED, Who.LEARNER, stopping=stopping) is Do.FINISH
    others = [verdicts.role(what, who, stopping=stopping) for what, who, _ in CASES]
    assert others.count(Do.FINISH) == 2  # the learner's, in both halves of the cases


def test_a_role_that_ends_early_is_started_again() -> None:
    assert verdicts.role(What.RAISED, Who.LEARNER, stopping=False) is Do.RESTART
    assert {verdicts.role(end, Who.WORKER, stopping=False) for end in ENDS} == {Do.RESTART}


def test_while_stopping_the_learner_alone_is_needed() -> None:
    assert verdicts.role(What.RAISED, Who.LEARNER, stopping=True) is Do.FAIL
    assert {verdicts.role(end, Who.WORKER, stopping=True) for end in ENDS} == {Do.NOTE}
    assert verdicts.role(What.DUE, Who.LEARNER, stopping=True) is Do.START
    assert verdicts.role(What.DUE, Who.WORKER, stopping=True) is Do.DROP
    assert verdicts.role(What.DUE, Who.WORKER, stopping=False) is Do.START


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_leavers_may_go_and_newcomers_cost_nothing_however_they_end(
    end: What, stopping: bool
) -> None:
    assert verdicts.role(end, Who.LEAVER, stopping=stopping) is Do.LET_GO
    assert verdicts.role(end, Who.NEWCOMER, stopping=stopping) is Do.GIVE_UP


def test_who_hangs_is_ended_unless_it_is_leaving() -> None:
    for who in (Who.LEARNER, Who.WORKER, Who.NEWCOMER):
        assert verdicts.role(What.HUNG, who, stopping=False) is Do.END
        assert verdicts.role(What.HUNG, who, stopping=True) is Do.GO_ON
    assert verdicts.role(What.HUNG, Who.LEAVER, stopping=False) is Do.GO_ON


def test_without_room_a_worker_waits_and_a_learner_ends_the_run() -> None:
    assert verdicts.role(What.NO_ROOM, Who.LEARNER, stopping=False) is Do.FAIL
    assert verdicts.role(What.NO_ROOM, Who.WORKER, stopping=False) is Do.WAIT


@pytest.mark.parametrize(
    ("answers", "alive", "silent_s", "do", "why"),
    [
        (True, True, 0, Do.GO_ON, ""),
        (True, True, 1000, Do.GO_ON, ""),
        (False, False, 0, Do.RESTART, "died"),
        (False, True, BROKER_SILENCE_S, Do.WAIT, ""),
        (False, True, BROKER_SILENCE_S + 1, Do.RESTART, "gave no answer for 10 s"),
    ],
)
def test_an_embedded_broker_is_restarted_when_it_died_or_was_silent_for_long(
    answers: bool, alive: bool, silent_s: float, do: Do, why: str
) -> None:
    assert verdicts.broker(answers=answers, alive=alive, silent_s=silent_s) == (do, why)


def test_a_broker_that_is_lost_in_between_ends_the_run_only_if_it_is_the_users() -> None:
    assert verdicts.broker_lost(embedded=True) is Do.WAIT
    assert verdicts.broker_lost(embedded=False) is Do.FAIL


def test_a_request_to_stop_is_patient_the_second_is_not() -> None:
    assert verdicts.stop(1, 0) == (Do.SAVE, "")
    assert verdicts.stop(1, STOP_TIMEOUT_S + 1) == (Do.FAIL, "got on with nothing for 120 s")
    assert verdicts.stop(2, 0) == (Do.FAIL, "was not waited for")
