"""Every way computes the same log-probs, to its rounding."""

from __future__ import annotations

import pytest
import torch

from sppo.bench.kernel_ways import ACCURATE, FULL_FLOAT32, PEERS, Way, ways_of

WAYS, MISSING = ways_of("cpu")
OWN = [way for way in WAYS if way.kind != "peer"]


@pytest.mark.parametrize("way", OWN, ids=lambda way: way.name)
def test_log_probs_are_those_of_the_full_computation(way: Way) -> None:
    torch.manual_seed(0)
    hidden_TH, weight_VH = torch.randn(5, 16).bfloat16(), torch.randn(40, 16).bfloat16()
    target_T = torch.randint(40, (5,))
    exact_TV = (hidden_TH.double() @ weight_VH.double().T).log_softmax(-1)
    exact_T = exact_TV.gather(-1, target_T[:, None])[:, 0]
    found_T = way.logprob(hidden_TH, weight_VH, target_T)
    bound = 1e-5 if way.name in (ACCURATE, FULL_FLOAT32) else 0.1
    assert float((found_T.double() - exact_T).abs().max()) < bound


def test_a_peer_is_there_or_says_what_it_needs() -> None:
    there = {way.name for way in WAYS if way.kind == "peer"}
    assert there | MISSING.keys() == PEERS.keys()
    assert all(reason.startswith("not installed: ") for reason in MISSING.values())
