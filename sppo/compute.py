"""The number format that a run computes in: `compute = "auto"` is decided once, by the processor,
for every role.

bf16 where the processor multiplies it: on GPUs, and on CPUs with AVX512_BF16 or AMX. Elsewhere a
CPU turns every bf16 number into float32 and back, and a step takes three times as long as in
float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from sppo.config import RunConfig

Compute = Literal["bfloat16", "float32"]

MULTIPLIES_BF16 = {"avx512_bf16", "amx_bf16"}
"""Flags of /proc/cpuinfo; what `torch.cpu._is_avx512_bf16_supported` and `_is_amx_tile_supported`
look at.
"""


def resolve(config: RunConfig, *, cuda: bool) -> Compute:
    """What `compute` comes to for a run whose learner is on GPUs, or on this machine's CPU."""
    if config.compute != "auto":
        return config.compute
    return "bfloat16" if cuda or MULTIPLIES_BF16 & cpu_flags() else "float32"


def resolved(config: RunConfig, *, cuda: bool) -> RunConfig:
    """The configuration with `compute` decided."""
    return config.model_copy(update={"compute": resolve(config, cuda=cuda)})


def dtype(config: RunConfig) -> torch.dtype:
    """The torch dtype of a configuration whose `compute` is decided."""
    import torch

    assert config.compute != "auto", "`resolved` comes first"
    return torch.bfloat16 if config.compute == "bfloat16" else torch.float32


def reason(config: RunConfig, found: Compute, *, cuda: bool) -> str:
    """Why it is that, in words."""
    if config.compute != "auto":
        return f"compute = {found!r}"
    if cuda:
        return "on GPUs"
    return f"this processor {'multiplies' if found == 'bfloat16' else 'does not multiply'} bf16"


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Features of this machine's processor, as Linux names them; none elsewhere."""
    if not path.exists():
        return frozenset()
    lines = [
        line
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith(("flags", "Features"))
    ]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()
