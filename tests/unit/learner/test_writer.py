"""A rank's part of a checkpoint is written by a thread, and says how it went."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from sppo.errors import SppoError
from sppo.learner import image
from sppo.learner import writer as module
from sppo.learner.writer import NOTE_BYTES, Writer, part_name, reserve
from tests.checkpoints import load


def part(scratch: Path, rank: int) -> dict[str, Any]:
    note = scratch / part_name(rank)
    deadline = time.monotonic() + 30
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    found: dict[str, Any] = json.loads(note.read_text())
    return found


def test_a_part_comes_last_and_names_the_ranks_files(tmp_path: Path) -> None:
    reserve(tmp_path, 2)
    writer = Writer()
    weight = torch.ones(3)
    kinds = {"model": [("w", weight)], "optimizer": [("step.w", torch.tensor(2.0))]}
    nbytes = writer.begin(tmp_path, kinds, rank=0, size=2)
    weight.zero_()  # training goes on
    found = part(tmp_path, 0)["files"]
    assert list(found) == [f"{kind}/00001-of-00002.safetensors" for kind in kinds]
    assert sum(file["bytes"] for file in found.values()) == nbytes
    assert load(tmp_path)["w"].tolist() == [1, 1, 1]
    assert load(tmp_path, "optimizer")["step.w"] == 2
    writer.begin(tmp_path, {"model": [("w", weight)]}, rank=1, size=2)
    assert list(part(tmp_path, 1)["files"]) == ["model/00002-of-00002.safetensors"]


def test_a_late_copy_is_made_when_the_weights_are_about_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let, write = threading.Event(), module.Image.write

    def later(*given: Any) -> dict[str, Any]:
        let.wait(30)
        return write(*given)

    monkeypatch.setattr(module.Image, "write", later)
    reserve(tmp_path, 1)
    writer, weight = Writer(late=True), torch.ones(3)
    writer.begin(tmp_path, {"model": [("w", weight)]}, rank=0, size=1)
    writer.detach()
    weight.zero_()
    let.set()
    assert part(tmp_path, 0)["files"]
    assert load(tmp_path)["w"].tolist() == [1, 1, 1]
    assert writer.held_s > 0
    writer.detach()  # nothing is left to copy


def test_what_went_wrong_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    reserve(tmp_path, 2)
    (tmp_path / "model").write_text("in the way")
    Writer().begin(tmp_path, {"model": [("w", torch.ones(3))]}, rank=1, size=2)
    assert "model" in part(tmp_path, 1)["error"]


def test_where_even_that_cannot_be_written_rank_0_sees_it_and_another_rank_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    for rank, ends in ((0, []), (1, [1])):
        writer = Writer()
        writer.begin(tmp_path, {"model": []}, rank=rank, size=2)  # where nothing was reserved
        assert writer._thread is not None
        writer._thread.join(30)
        assert part_name(rank).removesuffix(".json") in writer.error
        assert ended == ends


def test_a_rank_whose_checkpoint_was_given_up_meanwhile_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    writer = Writer()
    writer.begin(tmp_path / "gone", {"model": []}, rank=1, size=2)
    assert writer._thread is not None
    writer._thread.join(30)
    assert (writer.error, ended) == ("", [])


def test_what_a_rank_says_takes_the_room_that_was_reserved_on_a_disk_that_is_full_since(
    tmp_path: Path,
) -> None:
    reserve(tmp_path, 2)
    (note,) = tmp_path.glob("part-00002.*")
    before = note.stat()
    (tmp_path / "model").write_text("in the way")
    Writer().begin(tmp_path, {"model": [("w", torch.ones(3))]}, rank=1, size=2)
    assert part(tmp_path, 1)["error"]
    after = (tmp_path / part_name(1)).stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (
        before.st_ino, NOTE_BYTES, before.st_blocks,
    )  # fmt: skip


def test_a_rank_that_ends_writes_its_part_first_as_long_as_that_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.005)
    begun, let = threading.Event(), threading.Event()

    def write(image: Any, path: Path, wrote: Any) -> dict[str, Any]:
        begun.set()
        let.wait(30)
        wrote(1)
        return {}

    monkeypatch.setattr(module.Image, "write", write)
    reserve(tmp_path, 1)
    writer = Writer()
    writer.rescue()  # there is nothing
    writer.begin(tmp_path, {"model": []}, rank=0, size=1)
    monkeypatch.setattr(module, "RESCUE_S", 0.01)
    writer.rescue()  # one that stands still is left alone
    assert begun.wait(30)
    assert not (tmp_path / part_name(0)).exists()
    monkeypatch.setattr(module, "RESCUE_S", 30.0)
    threading.Timer(0.01, let.set).start()
    writer.rescue()
    assert (tmp_path / part_name(0)).exists()


def test_memory_that_was_prepared_is_what_the_first_checkpoint_is_copied_to(
    tmp_path: Path,
) -> None:
    writer = Writer()
    reserve(tmp_path, 1)
    writer.prepare(5000, pinned=False)
    writer.begin(tmp_path, {"model": [("w", torch.ones(1000))]}, rank=0, size=1)
    assert [len(block) for block in writer._room._blocks] == [5000]
    assert part(tmp_path, 0)["files"]
    assert load(tmp_path)["w"].sum() == 1000


def test_memory_that_was_short_is_said_with_what_lowers_it_when_a_checkpoint_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image.torch, "empty", Mock(side_effect=RuntimeError("can't allocate")))
    writer = Writer()
    writer.prepare(123_456_789, pinned=False)
    with pytest.raises(SppoError, match=r"123,456,789 bytes .*can't allocate; .*adapter\.rank"):
        writer.begin(tmp_path, {"model": [("w", torch.ones(3))]}, rank=0, size=1)
