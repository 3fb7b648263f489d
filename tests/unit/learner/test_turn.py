"""The learner's turn on a GPU that it shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo import turns
from sppo.learner.stops import Stopped
from sppo.learner.turn import Turn
from sppo.transport.memory import MemoryBroker
from sppo.turns import Turns
from tests import makers
from tests.unit.learner.fakes import records, stops


def made(
    folder: Path, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, **given: bool
) -> Turn:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(turns, "LOOK_S", 0.002)
    config = makers.run_config(launch=given, learner={"device": "cuda"})
    return Turn(config, "run", records(config, broker, folder), stops(broker))


def test_it_gives_back_what_torch_keeps_before_an_engine_has_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[bool] = []
    turn = made(tmp_path, MemoryBroker(), monkeypatch, share_gpu=True, take_turns=True)
    engine = Turns("run")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(engine.enter()))
    with turn.taken("training"):
        assert not engine.enter()
    assert given_back == [False]
    assert engine.enter()
    engine.leave()


def test_a_measurement_takes_a_turn_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = made(tmp_path, MemoryBroker(), monkeypatch, share_gpu=True, take_turns=True)
    engine = Turns("run")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert turn.within("checking parity", engine.enter)() is False
    assert engine.enter()
    engine.leave()


def test_a_run_that_stops_waits_for_no_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()
    turn = made(tmp_path, broker, monkeypatch, share_gpu=True, take_turns=True)
    engine = Turns("run")
    assert engine.enter()
    broker.registry.request_stop("learner", "enough")
    with pytest.raises(Stopped), turn.taken("training"):
        pytest.fail("an engine has it")
    assert not engine.wanted
    engine.leave()


def test_where_none_are_taken_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, engine = made(tmp_path, MemoryBroker(), monkeypatch), Turns("run")
    assert engine.enter()
    with turn.taken("training"):
        assert engine.enter()
    assert turn.within("training", len) is len
