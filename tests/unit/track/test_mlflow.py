from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.track.conftest import Written, about
from tests.unit.track.stubs import Recorder, adapter, install

RUN = SimpleNamespace(
    info=SimpleNamespace(run_id="r1"),
    data=SimpleNamespace(tags={"mlflow.loggedArtifacts": '[{"path": "a.json"}]'}),
)


def begin(monkeypatch: pytest.MonkeyPatch, written: Written, there: list[Any]) -> Any:
    client = Recorder({"search_runs": there, "create_run": RUN, "create_experiment": "7"})
    install(monkeypatch, "mlflow", MlflowClient=lambda: client)
    install(monkeypatch, "mlflow.entities", Metric=lambda *given: given, Param=lambda *given: given)
    install(monkeypatch, "mlflow.exceptions", MlflowException=KeyError)
    return adapter(monkeypatch, "mlflow").Run(about(written.run_dir)), client


def test_a_new_run_gets_its_settings(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked, client = begin(monkeypatch, written, [])
    tracked.figures(2, 100.5, {"loss": 0.5})
    tracked.samples(2, 100.5, "train", [(1, "x")])
    tracked.close()
    assert client.of("create_run") == [
        ("7", {"tags": {"sppo.run": "mine-abc"}, "run_name": "mine"})
    ]
    settings, figures = client.of("log_batch")
    assert ("learner.steps", "3") in settings[1]["params"]
    assert figures == ("r1", [("loss", 0.5, 100500, 2)])
    ((_, table, path),) = client.of("log_dict")
    assert (table["data"], path) == ([(1, "x")], "samples/train-000002.json")
    assert client.calls[-1] == ("set_terminated", "r1")


def test_a_run_that_is_there_is_gone_on_with(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked, client = begin(monkeypatch, written, [RUN])
    assert client.of("create_run") == client.of("log_batch") == []
    for step in range(60):
        tracked.samples(step, 1.0, "train", [])
    shown = json.loads(client.of("set_tag")[-1][2])
    assert (len(shown), shown[-1]["path"]) == (50, "samples/train-000059.json")
    assert json.loads(client.of("set_tag")[0][2])[0] == {"path": "a.json"}
