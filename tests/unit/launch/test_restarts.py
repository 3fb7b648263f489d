"""When a dead role is started again."""

from __future__ import annotations

import pytest

from sppo.errors import (
    ConfigError,
    ParityError,
    RoleDiedError,
    RoleFailedError,
    SppoError,
    WeightSyncError,
)
from sppo.launch.restarts import Restarts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_restart_waits_twice_as_long_and_the_fourth_death_ends_the_run() -> None:
    restarts = Restarts(3, Clock())
    restarts.saw("generator-0")
    died = RoleDiedError("generator-0 ended by itself (killed)")
    assert [restarts.delay_s("generator-0", died) for _ in range(3)] == [1, 2, 4]
    with pytest.raises(
        RoleDiedError, match=r"generator-0 died 4 times within 10 minutes.*\(killed\)"
    ):
        restarts.delay_s("generator-0", died)
    assert restarts.counts == {"generator-0": 3}


def test_deaths_long_ago_do_not_count_and_roles_are_counted_apart() -> None:
    clock = Clock()
    restarts = Restarts(3, clock)
    for name in ("generator-0", "generator-1"):
        restarts.saw(name)
        for _ in range(3):
            restarts.delay_s(name, WeightSyncError("late"))
    clock.now = 601
    assert restarts.delay_s("generator-0", WeightSyncError("late")) == 1


@pytest.mark.parametrize(
    "error", [ConfigError("lr"), ParityError("0.3 nats"), SppoError("disk full")]
)
def test_what_another_life_would_repeat_ends_the_run_at_once(error: SppoError) -> None:
    restarts = Restarts(3, Clock())
    restarts.saw("learner-0")
    with pytest.raises(type(error)):
        restarts.delay_s("learner-0", error)


def test_a_learner_that_gave_up_is_not_started_again_but_one_that_was_killed_is() -> None:
    restarts = Restarts(3, Clock())
    restarts.saw("learner-0")
    with pytest.raises(WeightSyncError):
        restarts.delay_s("learner-0", WeightSyncError("failed 5 times"))
    assert restarts.delay_s("learner-0", RoleDiedError("killed")) == 1


def test_a_role_that_never_came_up_ends_the_run_at_once() -> None:
    with pytest.raises(RoleDiedError):
        Restarts(3, Clock()).delay_s("generator-0", RoleDiedError("no memory"))


def test_an_error_that_comes_back_unchanged_ends_the_run_at_the_second_life() -> None:
    restarts = Restarts(3, Clock())
    restarts.saw("learner-0")
    failed = RoleFailedError(
        "learner-0 ended by itself (ValueError: not saved). Its last lines:\n12:00:01 ..."
    )
    assert restarts.delay_s("learner-0", failed) == 1
    with pytest.raises(
        RoleFailedError, match=r"same error ended two lives of learner-0: .*not saved"
    ):
        restarts.delay_s("learner-0", RoleFailedError(str(failed).replace("12:00:01", "12:00:31")))


def test_another_error_or_steps_in_between_are_worth_another_life() -> None:
    restarts = Restarts(9, Clock())
    restarts.saw("learner-0")
    restarts.delay_s("learner-0", RoleFailedError("learner-0 ended by itself (OSError: a)"))
    restarts.delay_s("learner-0", RoleFailedError("learner-0 ended by itself (OSError: b)"))
    restarts.stepped()
    restarts.delay_s("learner-0", RoleFailedError("learner-0 ended by itself (OSError: b)"))


def test_a_process_that_is_killed_twice_in_the_same_words_is_started_again() -> None:
    restarts = Restarts(3, Clock())
    restarts.saw("generator-0")
    for _ in range(3):
        restarts.delay_s(
            "generator-0", RoleDiedError("generator-0 ended by itself (ActorDiedError)")
        )
