"""Tensors of a checkpoint are read by any number of ranks, whichever number wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sppo.errors import ConfigError
from sppo.learner import stored
from sppo.learner.image import Image, Room
from sppo.learner.rows import fill
from tests.checkpoints import load
from tests.unit.learner.shards import shard

WHOLE = {"w": torch.arange(14.0).reshape(7, 2), "short": torch.arange(2.0), "n": torch.ones(())}


def write(folder: Path, size: int, copies: int = 1) -> None:
    """By so many ranks, as model."""
    (folder / "model").mkdir(parents=True)
    for rank in range(size * copies):
        shards = [
            (k, shard(v, rank, size, copies=copies) if v.ndim else v) for k, v in WHOLE.items()
        ]
        file = folder / "model" / f"{rank + 1:05d}-of-{size * copies:05d}.safetensors"
        Image(shards, Room(), first=rank == 0).write(file)


@pytest.mark.parametrize(("size", "copies"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2)])
def test_what_so_many_ranks_wrote_any_other_number_reads(
    size: int, copies: int, tmp_path: Path
) -> None:
    write(tmp_path, size, copies)
    assert all(torch.equal(found, WHOLE[k]) for k, found in load(tmp_path).items())
    with stored.opened(tmp_path, "model") as there:
        assert there.names() == WHOLE.keys()
        assert {k: there[k].shape for k in WHOLE} == {k: tuple(v.shape) for k, v in WHOLE.items()}
        for readers in (1, 2, 3, 5):
            for name in ("w", "short"):
                for rank in range(readers):
                    empty = shard(torch.zeros_like(WHOLE[name]), rank, readers)
                    fill(empty, there[name])
                    expected = shard(WHOLE[name], rank, readers)
                    assert torch.equal(empty.to_local(), expected.to_local())


def test_a_file_of_the_format_before_is_read_too(tmp_path: Path) -> None:
    save_file(WHOLE, tmp_path / "model.safetensors")
    assert all(torch.equal(found, WHOLE[k]) for k, found in load(tmp_path).items())


def test_a_kind_that_was_not_saved_is_named(tmp_path: Path) -> None:
    assert stored.paths(tmp_path, "anchor") == []
    with (
        pytest.raises(ConfigError, match=r"holds no anchor"),
        stored.opened(tmp_path, "anchor"),
    ):
        pass
