"""Objectives by name: ours, or a user's own by its import string `package.module:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import get_args

from sppo.config import ObjectiveConfig
from sppo.errors import ConfigError
from sppo.learner.objectives.base import Need, Objective, Scope
from sppo.learner.objectives.dpo import Dpo
from sppo.learner.objectives.grpo import Grpo
from sppo.learner.objectives.inpo import Inpo
from sppo.learner.objectives.rspo import Rspo
from sppo.learner.objectives.sppo import Sppo

OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "sppo": Sppo,
    "inpo": Inpo,
    "rspo": Rspo,
    "dpo": Dpo,
    "grpo": Grpo,
}
MEMBERS = ("scope", "needs", "select", "loss", "summary")


def make(settings: ObjectiveConfig) -> Objective:
    """The objective of `objective.name`. Raises ConfigError saying what is wrong with it."""
    said = f"objective.name = {settings.name!r}"
    if settings.name in OBJECTIVES:
        return OBJECTIVES[settings.name](settings)
    kind = _imported(settings.name, said)
    missing = [name for name in MEMBERS if not hasattr(kind, name)]
    if missing:
        raise ConfigError(
            f"{said}: the class has no {', '.join(missing)}; see Objective in "
            "sppo/learner/objectives/base.py"
        )
    try:
        objective = kind(settings)
        scope, needs = objective.scope, objective.needs
    except (Exception, SystemExit) as error:  # whatever a user's class does
        raise ConfigError(f"{said}: {type(error).__name__}: {error}") from error
    if scope not in get_args(Scope):
        raise ConfigError(f"{said}: scope is {scope!r}, not one of {', '.join(get_args(Scope))}")
    if not isinstance(needs, set | frozenset) or not needs <= set(get_args(Need)):
        raise ConfigError(
            f"{said}: needs is {needs!r}, not a set of some of {', '.join(get_args(Need))}"
        )
    return objective


def check_scores(objective: Objective, settings: ObjectiveConfig, *, compared: bool) -> None:
    """Raises ConfigError where the objective needs preferences and the scorer gave rewards."""
    if "preferences" in objective.needs and not compared and settings.link == "none":
        raise ConfigError(
            f"objective.name = {settings.name!r} needs preferences and the scorer gave rewards; "
            "return a [K, K] matrix or set objective.link = 'bradley-terry'"
        )


def _imported(name: str, said: str) -> Callable[[ObjectiveConfig], Objective]:
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a user's module does
        raise ConfigError(f"{said}: {type(error).__name__}: {error}") from error
    if not callable(kind):
        raise ConfigError(f"{said}: {attribute} is a {type(kind).__name__}, not a class")
    made: Callable[[ObjectiveConfig], Objective] = kind
    return made
