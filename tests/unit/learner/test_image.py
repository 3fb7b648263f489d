"""What a rank writes is a safetensors file like any other, whatever the memory it was copied to."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import xxhash
from safetensors.torch import load_file
from torch import Tensor

from sppo.learner import image
from sppo.learner.image import Image, Room
from tests.unit.learner.shards import shard

TENSORS = {
    "matrix": torch.arange(15.0).reshape(5, 3),
    "half": torch.arange(7).bfloat16(),
    "count": torch.tensor(3.0),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "none": torch.zeros(0, 4),
}


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_it_is_read_as_any_other_file(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "BLOCK", block)
    monkeypatch.setattr(image, "UNFLUSHED", 128)
    wrote: list[int] = []
    made = Image(TENSORS.items(), Room(), first=True)
    described = made.write(tmp_path / "a.safetensors", wrote.append)
    data = (tmp_path / "a.safetensors").read_bytes()
    assert described == {"bytes": len(data), "xxh3_128": xxhash.xxh3_128(data).hexdigest()}
    assert made.nbytes == sum(wrote) == len(data)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys() - {"none"}
    assert all(torch.equal(found[k], TENSORS[k]) for k in found)
    assert all(found[k].dtype == TENSORS[k].dtype for k in found)


def test_it_is_what_was_copied_and_not_what_came_after(tmp_path: Path) -> None:
    weight = torch.ones(4)
    made = Image([("w", weight)], Room(), first=True)
    weight.fill_(2)
    made.write(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["w"].tolist() == [1] * 4


@pytest.mark.parametrize("written", [0, 2, 3, 99])
def test_what_changes_while_it_is_written_is_copied_first_as_far_as_it_is_left(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "BLOCK", 128)
    weights = {name: torch.arange(40.0) for name in "abc"}
    made = Image(weights.items(), Room(), first=True, late=True)
    pieces = 0

    def step(nbytes: int) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == written:
            made.detach()
            for weight in weights.values():
                weight.zero_()

    if not written:
        made.detach()
        weights["b"].zero_()
    described = made.write(tmp_path / "a.safetensors", step)
    data = (tmp_path / "a.safetensors").read_bytes()
    assert described == {"bytes": len(data), "xxh3_128": xxhash.xxh3_128(data).hexdigest()}
    assert pieces > 3
    found = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], torch.arange(40.0)) for name in weights)


def test_nothing_is_copied_of_what_is_written_before_it_changes(tmp_path: Path) -> None:
    made = Image([("w", torch.ones(4))], Room(), first=True, late=True)
    made.write(tmp_path / "a.safetensors")
    lend = Mock(side_effect=made._room.lend)
    made._room.lend = lend  # type: ignore[method-assign]
    made.detach()
    lend.assert_called_once_with(0, pinned=False)


def test_its_memory_serves_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "BLOCK", 32)
    room = Room()
    first = room.lend(70, pinned=False)
    assert [len(block) for block in first] == [32, 32, 6]
    room.empty()
    again = room.lend(90, pinned=False)
    assert [block.data_ptr() for block in again[:3]] == [block.data_ptr() for block in first]
    assert sum(map(len, again)) >= 90


def test_torchs_own_reader_puts_the_ranks_files_together(tmp_path: Path) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    # Given what three ranks write of two tensors, one of which has rows for two ranks alone
    whole = {"w": torch.arange(14.0).reshape(7, 2), "short": torch.arange(2.0), "n": torch.ones(())}
    for rank in range(3):
        shards = [(k, shard(v, rank, 3) if v.ndim else v) for k, v in whole.items()]
        Image(shards, Room(), first=rank == 0).write(tmp_path / f"{rank}.safetensors")
    # When torch.distributed.checkpoint reads them on one
    found: dict[str, Tensor] = {k: torch.zeros_like(v) for k, v in whole.items()}
    checkpoint.load(found, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    # Then they are what they were
    assert all(torch.equal(found[k], v) for k, v in whole.items())
