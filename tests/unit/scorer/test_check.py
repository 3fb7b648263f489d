"""The scorer's checks before a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.scorer.check import check_scorer
from sppo.tasks.questions import Question, Questions
from tests import makers

HERE = "tests.unit.scorer.functions"


def questions(held_out: int = 2, **data: Any) -> Questions:
    def made(count: int) -> tuple[Question, ...]:
        return tuple(
            Question(source=f"q{i}", text=f"What is {i} + 0?", data={"answer": str(i), **data})
            for i in range(count)
        )

    return Questions(train=made(5), held_out=made(held_out))


def check(
    name: str, found: Questions | None = None, *, completions: int = 4, **sections: Any
) -> list[str]:
    """Returns what was told meanwhile."""
    scorer = {
        "name": name if name[0] != ":" else f"{HERE}{name}",
        "timeout_s": 5,
        **sections.pop("scorer", {}),
    }
    config = makers.run_config(scorer=scorer, sampling={"completions": completions}, **sections)
    told: list[str] = []
    check_scorer(config, found or questions(), told.append)
    return told


def test_a_function_is_called_as_training_and_evaluation_would_and_no_more(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    check(":seen", questions(log=str(log), task="add", nested=[{"a": None}]))
    training, evaluation = log.read_text().splitlines()
    assert training.startswith("4 4 MainThread")  # four completions, all different
    assert evaluation.startswith("1 1 MainThread")
    assert "'task': 'add', 'nested': [{'a': None}]" in training

    log.unlink()
    check(":seen", questions(0, log=str(log)))
    assert len(log.read_text().splitlines()) == 1


def test_one_that_compares_is_asked_to_compare_two_for_an_evaluation() -> None:
    check(":never_single")


def test_one_that_takes_its_time_is_said_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sppo.scorer.check.SLOW_S", 0.0)
    assert check(":by_length") == [
        "waiting for scorer.name = 'tests.unit.scorer.functions:by_length', which has 245 s for "
        "its first answer ..."
    ]


@pytest.mark.parametrize(
    "name", ["last-number", ":by_length", ":awaited", ":alarmed", ":decorated"]
)
def test_those_that_answer_pass(name: str) -> None:
    check(name)


REFUSED = {
    ":misses_a_column": (
        r"KeyError: 'solution' \(functions\.py, line \d+\); the data of a question holds "
        "answer$"
    ),
    ":refuses": r"RuntimeError: out of opinions \(functions\.py, line \d+\)$",
    ":nope": r"cannot be imported: AttributeError",
    "no_such_module:score": (
        r"cannot be imported: ModuleNotFoundError: No module named "
        "'no_such_module'"
    ),
    ":texts": "is not a number",
    ":in_one_order": r"expected a sum of 1.*a judge that depends on the order is asked in both",
    ":never_alone": (
        r"for an evaluation: .*return one number for a single completion, or set task\.held_out = "
        "0$"
    ),
    ":one_short": r"expected 4 rewards or 4 rows of 4 preferences, got shape \[3\]",
}


@pytest.mark.parametrize("name", REFUSED)
def test_those_that_do_not_are_refused_in_one_line_with_their_own_words(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]) as caught:
        check(name)
    assert str(caught.value).startswith("scorer.name = ")
    assert "\n" not in str(caught.value)


def test_rewards_where_the_objective_compares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"scorer\.name = .*needs preferences.*objective\.link"):
        check(":by_length", objective={"target": "half"})


def test_a_single_question_that_is_refused_is_no_mistake() -> None:
    found = questions()
    bad = Question(source="bad", text="bad", data={"answer": "none"})
    check("last-number", Questions(train=(bad, *found.train), held_out=found.held_out))
    with pytest.raises(ConfigError, match="holds no number"):
        check("last-number", Questions(train=(bad,) * 5, held_out=()))


def test_a_process_that_dies_tells_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text(
        "import os\ndef score(q, c, d):\n    print('no such device')\n    os._exit(4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"its process ended with exit code 4.*the last that it printed: no such dev",
    ):
        check("dies:score")


def test_a_service_that_is_not_there_is_found() -> None:
    started = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"scorer\.url = 'http://127\.0\.0\.1:1': .*is the service running"
    ):
        check("last-number", scorer={"url": "http://127.0.0.1:1"})
    assert time.monotonic() - started < 5
