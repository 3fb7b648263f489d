"""Which rows of a tensor are whose."""

from __future__ import annotations

import pytest
import torch

from sppo.learner.rows import fill, first_row, local, rows, whole, written_here
from tests.unit.learner.shards import shard


@pytest.mark.parametrize(("total", "size"), [(8, 2), (7, 3), (2, 4), (1, 1)])
def test_rows_are_split_as_torch_splits_them(total: int, size: int) -> None:
    values = torch.arange(total)
    chunks = [chunk.tolist() for chunk in torch.chunk(values, size)]
    shards = [shard(values, rank, size) for rank in range(size)]
    assert [values[rows(s)].tolist() for s in shards] == chunks + [[]] * (size - len(chunks))
    assert [first_row(s) for s in shards] == [rows(s).start for s in shards]


def test_a_rank_fills_its_rows_and_scalars_are_everyones() -> None:
    source = torch.arange(10.0).reshape(5, 2)
    full = torch.zeros(5, 2)
    fill(full, source)
    assert torch.equal(full, source)
    second = shard(torch.zeros(5, 2), 1, 2)
    fill(second, source)
    assert torch.equal(second.to_local(), source[3:])
    count = torch.tensor(0.0)
    fill(count, torch.tensor(3.0))
    assert count == 3


def test_what_several_ranks_have_is_written_once() -> None:
    values = torch.arange(6)
    written = [written_here(shard(values, rank, 2, copies=3), first=rank == 0) for rank in range(6)]
    assert written == [True, True, False, False, False, False]
    assert [written_here(values, first=first) for first in (True, False)] == [True, False]


def test_a_plain_tensor_is_whole_and_local() -> None:
    value = torch.ones(2)
    assert local(value) is value
    assert whole(value) is value
