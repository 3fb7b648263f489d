"""A disk that is full, small, slow or not ours."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from sppo.doctor import disk
from sppo.doctor.findings import Run, made

from .conftest import line, seen

Running = Callable[..., Run]
Disk = namedtuple("Disk", "total used free")


def free(nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(nbytes, 0, nbytes))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "TRIED", 1 << 20)


def test_room_and_speed_are_told_and_nothing_is_left(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(100 << 30, monkeypatch)
    monkeypatch.setattr(disk, "SLOW", 0.0)
    monkeypatch.setattr(disk, "SLOW_FLUSH_S", 60.0)
    found = disk.disk(run())
    assert seen(found) == {"disk": "ok", "disk speed": "ok"}
    assert "2 checkpoints and the one that is written take 4.5" in found[0].words
    assert not list(tmp_path.rglob(".sppo-doctor-*"))


def test_no_room_for_the_checkpoints_is_a_warning(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(2 << 30, monkeypatch)
    assert line(disk.disk(run()), "disk").state == "warn"


def test_no_room_for_the_broker_fails(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    free(1 << 20, monkeypatch)
    (it,) = made("disk", disk.disk, run())
    assert (it.state, "the broker's log needs 1024" in it.words) == ("fail", True)


def test_a_slow_disk_is_a_warning(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    free(100 << 30, monkeypatch)
    monkeypatch.setattr(disk, "SLOW", 1e15)
    assert line(disk.disk(run()), "disk speed").state == "warn"


def test_a_folder_that_may_not_be_written_fails(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    (it,) = disk.disk(run())
    assert (it.state, "cannot be written" in it.words) == ("fail", True)


def test_a_model_that_nobody_knows_has_checkpoints_of_no_size(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(2 << 30, monkeypatch)
    assert line(disk.disk(run("model.name=nobody/knows-this")), "disk").state == "ok"


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert disk.nearest(tmp_path / "a" / "b") == tmp_path
