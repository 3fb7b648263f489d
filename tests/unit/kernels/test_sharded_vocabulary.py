"""A vocabulary that is sharded over ranks: log-probs and gradients of one rank that holds it
all.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sppo.kernels import linear_logprob

TOKENS, HIDDEN = 11, 16
RANKS = 2
SHARDS = ((1000, 337), (0, 705))  # rows of each rank; one has none
OPTIONS: dict[str, Any] = {
    "softcap": 8.0,
    "temperature": torch.linspace(0.5, 2, TOKENS),
    "return_entropy": True,
}


def whole(rows: int, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(rows)
    data = {
        "hidden_TH": torch.randn(TOKENS, HIDDEN).to(dtype),
        "weight_VH": torch.randn(rows, HIDDEN).to(dtype),
        "bias": torch.randn(rows).to(dtype),
        "target_T": torch.randint(0, rows, (TOKENS,)),
    }
    data["target_T"][:4] = torch.tensor([0, rows - 1, -100, 1000 % rows])
    return data


def evaluate(data: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    leaves = {
        k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in data.items()
    }
    logprob_T, entropy_T, lse_T = linear_logprob(**leaves, **OPTIONS, **options)
    assert entropy_T is not None
    torch.manual_seed(1)
    upstream_T = torch.randn(TOKENS, dtype=logprob_T.dtype)
    ((logprob_T + 0.3 * entropy_T) * upstream_T).sum().backward()
    found = {"logprob_T": logprob_T, "entropy_T": entropy_T, "lse_T": lse_T}
    found |= {f"d {k}": v.grad for k, v in leaves.items() if v.grad is not None}
    return {k: v.detach() for k, v in found.items()}


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    group = dist.group.WORLD
    for shards in SHARDS:
        first = sum(shards[:rank])
        mine = slice(first, first + shards[rank])
        for dtype in (torch.float32, torch.bfloat16):
            data = whole(sum(shards), dtype)
            data |= {"weight_VH": data["weight_VH"][mine], "bias": data["bias"][mine]}
            found = {
                backend: evaluate(data, group=group, backend=backend)
                for backend in ("torch", "reference")
            }
            again = evaluate(data, group=group)
            assert all(torch.equal(again[k], v) for k, v in found["torch"].items())
            torch.save(found, f"{folder}/{sum(shards)}-{rank}-{dtype}.pt")
    with pytest.raises(ValueError, match="holds 9999: expected 0 to 704"):
        linear_logprob(**(data | {"target_T": torch.full((TOKENS,), 9999)}), group=group)
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process that ends in the ordinary way


def test_ranks_with_a_part_each_agree_with_one_that_holds_it_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=RANKS)
    for rows, dtype in itertools.product(map(sum, SHARDS), (torch.float32, torch.bfloat16)):
        bound = 1e-5 if dtype is torch.float32 else 5e-3
        data = whole(rows, dtype)
        wanted = evaluate(
            {k: v.double() if v.is_floating_point() else v for k, v in data.items()},
            backend="reference",
        )
        every = [torch.load(tmp_path / f"{rows}-{rank}-{dtype}.pt") for rank in range(RANKS)]
        for backend in ("torch", "reference"):
            found = [rank[backend] for rank in every]
            for name in ("logprob_T", "entropy_T", "lse_T", "d hidden_TH"):
                assert all(torch.equal(found[0][name], other[name]) for other in found[1:])
            joined = {
                k: torch.cat([f[k] for f in found])
                if k in ("d weight_VH", "d bias")
                else found[0][k]
                for k in wanted
            }
            for name, values in wanted.items():
                error = float((joined[name].double() - values).norm() / values.norm())
                assert error < bound, f"{backend} {dtype} {name}: {error}"
