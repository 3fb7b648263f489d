"""The tile that a device gets."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from sppo.kernels import tiles

TABLES = (tiles.FORWARD, tiles.BACKWARD, tiles.SOFTCAP_BACKWARD, tiles.FLOAT32)


@pytest.mark.parametrize(
    ("capability", "found"),
    [
        ((8, 0), (80, False)),
        ((8, 9), (80, False)),
        ((9, 0), (90, True)),
        ((10, 3), (100, True)),
        ((12, 0), (80, True)),  # less shared memory than the data-centre part of its generation
    ],
)
def test_a_device_takes_the_table_that_fits_its_memory(
    capability: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert tiles.architecture(torch.device("cuda")) == found


def test_every_table_knows_every_architecture_and_divides_a_split() -> None:
    for table in TABLES:
        assert set(table) == set(get_args(tiles.Architecture))
        assert all(tiles.SPLIT % tile.BN == 0 for tile in table.values())


def test_without_a_gpu_the_tile_is_the_interpreters() -> None:
    some = torch.zeros(1, 1)
    assert tiles.forward_tile(some) == tiles.INTERPRETED
    assert tiles.backward_tile(some, softcap=True) == tiles.INTERPRETED
