"""GPUs: driver, toolkit, devices; NCCL; peer access and topology; who else is on them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppo import compute
from sppo.config import RunConfig
from sppo.doctor.findings import Finding, Run, fail, ok, skip, warn
from sppo.launch import room

DRIVER = Path("/proc/driver/nvidia/version")
LOWEST = (8, 0)
"""Compute capability: bf16 in hardware, and what the kernels are compiled for in tests."""
SHARED = 0.1
"""Part of a GPU's memory that others may have."""
TOPOLOGY_S = 5.0


def cuda(run: Run) -> list[Finding]:
    """Driver, toolkit and devices against what the run asks for."""
    import torch

    if run.config.launch.ray_address:
        return [skip("CUDA", "launch.ray_address is set: the cluster's machines have the GPUs")]
    driver, toolkit = _driver(), torch.version.cuda
    if not toolkit:
        return [_without(run.config, driver)]
    if not compute.gpus_here():
        words = f"torch is built for CUDA {toolkit}, and sees no GPU; driver: {driver or 'none'}"
        mend = "nvidia-smi says more; in a container: docker run --gpus all"
        if run.config.learner.device == "cuda" or driver:
            return [fail("CUDA", words, mend)]
        return [ok("CUDA", f"{words}; learner and engines take the CPU")]
    words = f"driver {driver or 'unknown'}, torch's toolkit {toolkit}"
    return [ok("CUDA", words), *_devices(), _enough(run.config)]


def _driver() -> str:
    """The version of NVIDIA's kernel module; empty where none is loaded."""
    if not DRIVER.is_file():
        return ""
    words = DRIVER.read_text(encoding="utf-8", errors="replace").split()
    return next((w for w in words if w[:1].isdigit() and "." in w), "unknown")


def _without(config: RunConfig, driver: str) -> Finding:
    said = "torch is a build without CUDA"
    mend = "install the extra vllm in an environment of its own"
    if config.learner.device == "cuda":
        return fail("CUDA", f"{said}, and learner.device = 'cuda'", mend)
    if driver:
        return warn("CUDA", f"{said}, and this machine has NVIDIA's driver {driver}", mend)
    return ok("CUDA", f"{said}, and no NVIDIA driver is here: learner and engines take the CPU")


def _devices() -> list[Finding]:
    """One line for each."""
    import torch

    archs = torch.cuda.get_arch_list()
    return [
        _device(f"GPU {i}", torch.cuda.get_device_properties(i), archs)
        for i in range(torch.cuda.device_count())
    ]


def _device(name: str, it: Any, archs: list[str]) -> Finding:
    at = (it.major, it.minor)
    said = f"{it.name}, {it.total_memory / 2**30:.1f} GiB, compute capability {at[0]}.{at[1]}"
    if at < LOWEST:
        words = f"{said}; kernels and bf16 want {LOWEST[0]}.{LOWEST[1]}"
        mend = "hide it (CUDA_VISIBLE_DEVICES), or set learner.device = 'cpu'"
        return fail(name, words, mend)
    if not _built_for(at, archs):
        words = f"{said}; this torch is built for {', '.join(archs)}"
        return fail(name, words, "install a torch that is built for it")
    return ok(name, said)


def _built_for(at: tuple[int, int], archs: list[str]) -> bool:
    """Machine code of the same major and no later minor (sm_80), or older PTX (compute_90)."""
    for arch in archs:
        kind, _, number = arch.partition("_")
        digits = "".join(c for c in number if c.isdigit())
        has = (int(digits[:-1]), int(digits[-1]))
        if (kind == "sm" and has[0] == at[0] and has[1] <= at[1]) or (
            kind == "compute" and has <= at
        ):
            return True
    return not archs


def _enough(config: RunConfig) -> Finding:
    """The run's roles against the GPUs that are here."""
    import torch

    placed = compute.placed(config, cuda=compute.on_gpu(config, gpus=True))
    counts = room.staff(placed)
    wanted = sum(n * room.demand(role, placed).gpus for role, n in counts.items())
    there = torch.cuda.device_count()
    said = f"the run asks for {wanted:g}, and {there} are here"
    if round(wanted - there, 6) > 0:
        mend = "lower generator.replicas or learner.ranks, or launch.share_gpu = true with one GPU"
        return fail("GPUs", said, mend)
    return ok("GPUs", said)


def nccl(run: Run) -> list[Finding]:
    """The library by which ranks, and weights on GPUs, travel."""
    import torch

    if not torch.version.cuda or not compute.gpus_here():
        return [skip("NCCL", "no GPU here")]
    path = os.environ.get("VLLM_NCCL_SO_PATH") or "libnccl.so.2"
    try:  # by its name the one that torch has loaded is found
        version = _version(ctypes.CDLL(path).ncclGetVersion)
    except (OSError, AttributeError) as error:
        placed = compute.placed(run.config, cuda=True)
        needed = placed.weights.transport == "nccl" or run.config.learner.ranks > 1
        said, mend = f"{path} does not load: {error}", "pip install torch anew, which brings NCCL"
        return [fail("NCCL", said, mend) if needed else warn("NCCL", said, mend)]
    own = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return [ok("NCCL", f"{version} ({path}); torch was built with {own}")]


def _version(ask: Callable[..., int]) -> str:
    """2.27.5 of 22705."""
    number = ctypes.c_int()
    ask(ctypes.byref(number))
    major, rest = divmod(number.value, 10_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def peers(_: Run) -> list[Finding]:
    """Whether each GPU reads the others' memory, and by what they are joined."""
    import torch

    count = torch.cuda.device_count() if torch.version.cuda and compute.gpus_here() else 0
    if count < 2:
        return [skip("peer access", f"{count or 'no'} GPU here")]
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    apart = [(i, j) for i, j in pairs if not torch.cuda.can_device_access_peer(i, j)]
    joined = topology()
    said = f"{len(pairs) - len(apart)} of {len(pairs)} pairs{f'; {joined}' if joined else ''}"
    if apart:
        words = f"{said}; GPU {apart[0][0]} does not read GPU {apart[0][1]}"
        mend = "NCCL goes through host memory; where it hangs: NCCL_P2P_DISABLE=1 (PCIe ACS, IOMMU)"
        return [warn("peer access", words, mend)]
    return [ok("peer access", said)]


def topology() -> str:
    """How many pairs are joined by what, as `nvidia-smi topo -m` has it (NV18 NVLink, PIX and PHB
    PCIe, SYS over the processors); empty where it is not to be had.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        said = subprocess.run(
            [tool, "topo", "-m"], capture_output=True, text=True, timeout=TOPOLOGY_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [line.split() for line in said.splitlines() if line.startswith("GPU")]
    links = Counter(
        cell for i, row in enumerate(rows) for cell in row[2 + i : 1 + len(rows)]
    )  # each pair once
    return ", ".join(f"{count} x {link}" for link, count in links.most_common())


def share(run: Run) -> list[Finding]:
    """What is free of each GPU: whoever else is on it takes it from vLLM's share."""
    import torch

    if not torch.version.cuda or not compute.gpus_here():
        return [skip("GPU share", "no GPU here")]
    busy = []
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        if total - free > SHARED * total:
            busy.append(f"GPU {i} {(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB")
    if busy:
        return [
            warn("GPU share", f"others have memory of {', '.join(busy)}",
                 "nvidia-smi names them; end them, or lower generator.gpu_memory_utilization")
        ]  # fmt: skip
    both = "; learner and generators share one" if run.config.launch.share_gpu else ""
    return [ok("GPU share", f"nobody else is on them{both}")]
