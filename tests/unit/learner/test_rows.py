"""Which rows of a tensor are whose."""

from __future__ import annotations

import pytest
import torch

from sppo.learner.ranks import Solo
from sppo.learner.rows import fill, local, rows, whole


def team(rank: int, size: int) -> Solo:
    made = Solo()
    made.rank, made.size = rank, size
    return made


@pytest.mark.parametrize(("total", "size"), [(8, 2), (7, 3), (2, 4), (1, 1)])
def test_rows_are_split_as_torch_splits_them(total: int, size: int) -> None:
    values = torch.arange(total)
    chunks = [chunk.tolist() for chunk in torch.chunk(values, size)]
    own = [values[rows(total, team(rank, size))].tolist() for rank in range(size)]
    assert own == chunks + [[]] * (size - len(chunks))


def test_a_rank_fills_its_rows_and_scalars_are_everyones() -> None:
    source = torch.arange(10.0).reshape(5, 2)
    full = torch.zeros(5, 2)
    fill(full, source, team(0, 1))
    assert torch.equal(full, source)
    count = torch.tensor(0.0)
    fill(count, torch.tensor(3.0), team(1, 2))
    assert count == 3


def test_a_plain_tensor_is_whole_and_local() -> None:
    value = torch.ones(2)
    assert local(value) is value
    assert whole(value) is value
