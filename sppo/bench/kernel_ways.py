"""Ways to the log-probs of tokens: ours, the full computation, and peers that are installed.

Shape suffixes: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sppo.kernels import Head, linear_logprob, logits_logprob

Logprob = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden_TH, weight_VH, target_T) to log-probs [T]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One implementation."""

    name: str
    kind: Literal["ours", "full", "peer"]
    logprob: Logprob


ACCURATE, FAST, TORCH = "sppo", "sppo, fast", "sppo, torch"
FROM_LOGITS = "sppo, from bf16 logits"
FULL_FLOAT32, FULL_BF16 = "log_softmax, float32 logits", "log_softmax, bf16 logits"


def _accurate(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    return linear_logprob(hidden_TH, target_T, Head(weight_VH=weight_VH))[0]


def _fast(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    return linear_logprob(hidden_TH, target_T, Head(weight_VH=weight_VH), fast=True)[0]


def _torch(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    return linear_logprob(hidden_TH, target_T, Head(weight_VH=weight_VH), backend="torch")[0]


def _from_logits(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    return logits_logprob(hidden_TH @ weight_VH.T, target_T, inplace_backward=True)[0]


def _full_float32(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    all_TV = torch.log_softmax(hidden_TH.float() @ weight_VH.float().T, -1)
    return all_TV.gather(-1, target_T[:, None])[:, 0]


def _full_bf16(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
    return (
        torch.log_softmax(hidden_TH @ weight_VH.T, -1).gather(-1, target_T[:, None])[:, 0].float()
    )


def _torch_fused() -> Logprob:
    options = torch.nn.LinearCrossEntropyOptions()

    def logprob(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
        fused: Any = torch.nn.functional.linear_cross_entropy
        loss_T: Tensor = fused(hidden_TH, weight_VH, target_T, reduction="none", options=options)
        return -loss_T.float()

    return logprob


def _liger() -> Logprob:
    base: Any = importlib.import_module(
        "liger_kernel.chunked_loss.fused_linear_ppo"
    ).LigerFusedLinearPPOBase

    def logprob(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
        logprob_1T: Tensor = base.chunk_forward(hidden_TH[None], weight_VH, target_T[None])
        return logprob_1T[0]

    return logprob


def _cut_cross_entropy(implementation: str) -> Logprob:
    package: Any = importlib.import_module("cut_cross_entropy")

    def logprob(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor) -> Tensor:
        given = (hidden_TH, weight_VH, target_T)
        loss_T: Tensor = package.linear_cross_entropy(*given, reduction="none", impl=implementation)
        return -loss_T.float()

    return logprob


PEERS: dict[str, tuple[str, Callable[[str], Logprob]]] = {
    "torch linear_cross_entropy": ("torch 2.13", lambda device: _torch_fused()),
    "Liger, chunked": ("liger-kernel", lambda device: _liger()),
    "Apple cut-cross-entropy": (
        "cut-cross-entropy and triton",
        lambda device: _cut_cross_entropy("cce" if device == "cuda" else "torch_compile"),
    ),
}
"""Name to (what has to be installed, how to load it for a device)."""


def ways_of(device: str) -> tuple[list[Way], dict[str, str]]:
    """Ours, the full computations and the peers that are installed; and why others are missing."""
    ways = [
        Way(name=ACCURATE, kind="ours", logprob=_accurate),
        # On a GPU Triton is the first: it does not round logits, and the torch path is the
        # alternative to it.
        Way(name=FAST, kind="ours", logprob=_fast)
        if device == "cpu"
        else Way(name=TORCH, kind="ours", logprob=_torch),
        Way(name=FROM_LOGITS, kind="full", logprob=_from_logits),
        Way(name=FULL_FLOAT32, kind="full", logprob=_full_float32),
        Way(name=FULL_BF16, kind="full", logprob=_full_bf16),
    ]
    missing = {}
    for name, (needed, load) in PEERS.items():
        try:
            ways.append(Way(name=name, kind="peer", logprob=load(device)))
        except (ImportError, AttributeError):
            missing[name] = f"not installed: {needed}"
    return ways, missing
