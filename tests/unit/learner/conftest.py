"""A tiny model, and groups for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sppo.types import Group
from tests import makers
from tests.unit.learner.tiny import (
    VOCABULARY,
)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)


@pytest.fixture
def groups() -> list[Group]:
    return some_groups()


def some_groups() -> list[Group]:
    """Six, of which one has no signal."""
    made = makers.random_groups(np.random.default_rng(3), 6, vocabulary=VOCABULARY)
    made[3] = replace(made[3], rewards=np.full(len(made[3].completions), 0.5, np.float32))
    return made
