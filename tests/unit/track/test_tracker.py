from __future__ import annotations

import importlib.util
from typing import get_args

import pytest

from sppo.config.track import Tracker
from sppo.errors import ConfigError
from sppo.track import tracker


def test_the_setting_knows_the_same_names() -> None:
    assert get_args(Tracker) == tuple(tracker.TRACKERS)


def test_what_is_not_installed_is_told_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracker.check([])
    with pytest.raises(ConfigError, match=r"'wandb', and wandb is not installed: pip install 'sp"):
        tracker.check(["wandb"])
    with pytest.raises(ConfigError, match="mlflow and sqlalchemy and alembic is not installed"):
        tracker.check(["mlflow"])


def test_a_name_that_is_none_is_told_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match="'wandbb': there are tensorboard, wandb, trackio, mlflow"
    ):
        tracker.check(["wandbb"])
