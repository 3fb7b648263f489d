from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.track.conftest import Written, about
from tests.unit.track.stubs import Recorder, adapter, install


def test_a_run_of_the_same_name_is_gone_on_with(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = Recorder(), []

    def init(**named: Any) -> Recorder:
        begun.append(named)
        return run

    table = lambda columns, data: SimpleNamespace(columns=columns, data=data)  # noqa: E731
    install(monkeypatch, "trackio", init=init, Table=table)
    tracked = adapter(monkeypatch, "trackio").Run(about(written.run_dir))
    tracked.figures(2, 100.0, {"loss": 0.5})
    tracked.samples(2, 100.0, "eval", [tuple(range(11))])
    tracked.close()
    assert (begun[0]["name"], begun[0]["resume"]) == ("mine-abc", "allow")
    assert run.of("log")[0] == ({"loss": 0.5}, {"step": 2})
    assert run.of("log")[1][0]["samples/eval"].data == [list(range(11))]
    assert run.calls[-1] == ("finish",)
