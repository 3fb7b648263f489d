from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sppo.track.shape import COLUMNS
from tests.unit.track.conftest import Written, about
from tests.unit.track.stubs import Recorder, adapter, install


def test_a_run_of_the_same_id_is_gone_on_with(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config, begun = Recorder(), Recorder(), []
    run.config = config

    def init(**named: Any) -> Recorder:
        begun.append(named)
        return run

    install(
        monkeypatch, "wandb", init=init, Settings=dict,
        Table=lambda columns, data: SimpleNamespace(columns=columns, data=data),
    )  # fmt: skip
    monkeypatch.setenv("WANDB_PROJECT", "other")
    tracked = adapter(monkeypatch, "wandb").Run(about(written.run_dir))
    tracked.figures(2, 100.0, {"loss": 0.5})
    tracked.samples(2, 100.0, "train", [tuple(range(11))])
    tracked.close()
    (given,) = begun
    assert (given["project"], given["id"], given["resume"]) == ("other", "mine-abc", "allow")
    assert config.of("update")[0][0]["learner"]["steps"] == 3
    assert run.of("define_metric") == [("*", {"step_metric": "step"})]
    history = run.of("log")
    assert history[0] == ({"step": 2, "loss": 0.5},)
    assert history[1][0]["samples/train"].columns == list(COLUMNS)
    assert run.calls[-1] == ("finish",)
