"""Variables: how they are named, and those that are no setting."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_OPTIMIZR__LR", "1")
    with pytest.raises(ConfigError, match="did you mean SPPO_OPTIMIZER__LR"):
        config.load("quickstart")


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("SPPO_Learner__Steps", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("sppo_learner__steps", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("SPPO_LEARNER__STEPSS", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("SPPO_SEED__X", "5", "did you mean SPPO_SEED"),
        (
            "SPPO_OPTIMIZER",
            '{"LR": 1}',
            r"optimizer\.LR \(from environment\): no such setting; did you mean optimizer\.lr\?",
        ),
        (
            "SPPO_OPTIMIZER",
            '{"lr": 1, "lr": 2}',
            "SPPO_OPTIMIZER in the environment: the key 'lr' stands twice",
        ),
        ("SPPO_LEARNER", "5", "learner = 5: .*dictionary"),
        ("SPPO_TASK", "[1]", "task = .*dictionary"),
        ("SPPO_LEARNER", "lr=1", "SPPO_LEARNER in the environment: .*written as JSON"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, words: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=words):
        config.load("quickstart")


def test_variables_set_sections_tables_lists_and_single_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPPO_LEARNER", '{"ranks": 2, "steps": 4}')
    monkeypatch.setenv("SPPO_OPTIMIZER", '{"lr": 0.5}')
    monkeypatch.setenv("SPPO_LEARNER__STEPS", "7")
    monkeypatch.setenv("SPPO_OPTIMIZER__BETAS", "[0.5, 0.6]")
    monkeypatch.setenv("SPPO_TASK__PARAMS__MIN_TERMS", "3")
    monkeypatch.setenv("SPPO_TASK__PARAMS__KIND", "easy")
    loaded = config.load("quickstart")
    assert (loaded.optimizer.lr, loaded.learner.steps, loaded.optimizer.betas) == (
        0.5,
        7,
        (0.5, 0.6),
    )
    assert (
        loaded.task.params["min_terms"],
        loaded.task.params["kind"],
        loaded.task.params["max_terms"],
    ) == (
        3,
        "easy",
        2,
    )
