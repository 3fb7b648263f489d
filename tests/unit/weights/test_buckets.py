"""What travels together."""

from __future__ import annotations

import torch

from sppo.weights.buckets import buckets, stage
from tests.unit.weights.peers import same, weights


def test_buckets_tile_the_weights_in_order() -> None:
    names = [f"w{i}" for i in range(6)]
    shapes = [[4], [30], [2, 3], [], [100], [1]]
    plan = buckets(names, ["float32"] * 6, shapes, 64)
    assert [n for b in plan for n in b.names] == names
    assert [b.nbytes for b in plan] == [16, 120, 32, 400, 8]


def test_both_ends_derive_the_same_buckets_and_the_bits_come_back() -> None:
    sent = weights(0)
    update, flats = stage(sent.items(), [], 128, pin=False)
    plan = buckets(**update, limit=128)
    assert [b.nbytes for b in plan] == [f.numel() for f in flats]
    came = {k: w for b, f in zip(plan, flats, strict=True) for k, w in b.unpack(f)}
    assert same(came, sent)
    assert came["layer.0.bias"].dtype == torch.bfloat16
