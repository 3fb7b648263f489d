"""One run, judged as it goes on."""

from __future__ import annotations

from typing import Any

from sppo.watch.said import Finding
from sppo.watch.watch import LOOK_S, Watch
from tests import makers
from tests.unit.watch.test_roles import generator
from tests.unit.watch.test_steps import record, series


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(clock: Clock | None = None, **learner: Any) -> Watch:
    config = makers.run_config(learner=learner).model_copy(update={"compute": "bfloat16"})
    return Watch(config, clock or Clock())


def topics(findings: list[Finding]) -> list[str]:
    return [finding.topic for finding in findings]


def test_a_topic_is_said_once_over_many_steps() -> None:
    judge, said = watch(), []
    for each in series(40, truncated_share=lambda n: 1):
        said += topics(judge.step(each))
    assert said == ["truncation"]


def test_what_an_earlier_life_has_said_is_not_said_again() -> None:
    records = series(40, truncated_share=lambda n: 1)
    judge = watch()
    judge.recall(records[:20])
    assert [judge.step(each) for each in records[20:]] == [[]] * 20


def test_a_starving_learner_is_judged_once_a_window() -> None:
    judge, said = watch(), []
    for n in range(1, 31):
        for _ in range(4):
            judge.waits([generator(1, 1, in_hand=4, scoring=4)])
        said += [(n, t) for t in topics(judge.step(record(n, wait_s=4.0)))]
    assert said == [(10, "scorer slow")]


def test_the_broker_is_asked_now_and_then() -> None:
    clock, asked = Clock(), []
    judge = watch(clock)

    def depths() -> dict[str, int]:
        asked.append(clock.now)
        return {"bytes": 2**31}

    said = []
    for clock.now in (0.0, 1.0, LOOK_S, LOOK_S + 1, 2 * LOOK_S):
        said += topics(judge.look([], depths))
    assert asked == [0.0, LOOK_S, 2 * LOOK_S]
    assert said == ["broker"]


def test_a_pause_makes_nobody_idle() -> None:
    clock = Clock()
    judge = watch(clock)
    judge.look([generator(0, 0)], dict)
    judge.pause()
    clock.now = 200.0
    assert judge.look([generator(200, 0)], dict) == []


def test_other_parts_of_the_learner_have_their_findings_said_once_too() -> None:
    judge, finding = watch(), Finding("parity", "words", 0.2)
    assert [judge.hear("parity", f) for f in (finding, None, finding)] == [[finding], [], []]
