"""`sppo-cli bench kernels`: token log-probs of the chunked head against the full computation and
against peers.

Shape suffixes: T tokens, H hidden, V vocabulary.

All ways run in one process, by turns, so that whatever else the machine does falls on all of them.
Forward is without a graph; backward is timed inside of full. Memory is what a call adds at its
peak: of resident memory on a CPU, of the allocator on a GPU. The bars of the ratios of time are for
a CPU with AMX bf16, and not judged without it; the GPU grid has none. Peers are compared with the
path of their rounding, forward and full, and the least ratio counts.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sppo.bench.checks import Check, at_least, at_most, unjudged
from sppo.bench.gauges import Clock, Memory
from sppo.bench.kernel_ways import ACCURATE, FAST, FULL_BF16, FULL_FLOAT32, Way, ways_of
from sppo.errors import SppoError

Device = Literal["auto", "cpu", "cuda"]
MODES = ("forward", "backward", "full")
PRODUCTS = {"forward": 2, "backward": 4, "full": 6}
"""Times THV: the floating-point operations of the products alone."""
MOST_ERROR = 1e-4
"""Mean |Δ| in nats of what counts as exact: float32 logits reach it, logits rounded to bf16 do
not.
"""
MOST_SECONDS = 60
"""After so many a slow way is timed no further."""
SAMPLED_TOKENS = 64
"""Tokens whose log-probs are compared with float64."""
GPU_NEEDS = (
    "the grid of `sppo-cli bench kernels --device cuda` needs an NVIDIA GPU of compute capability "
    "8.0 or more, the CUDA build of torch 2.13.0 and triton 3.7.1; what does not fit into its "
    "memory is reported as such"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One problem, bf16."""

    tokens: int
    hidden: int
    vocabulary: int


DEFAULT_SIZE = Size(tokens=2048, hidden=576, vocabulary=49152)
"""Of the default model, smollm2-135m."""
QUICK_SIZE = Size(tokens=256, hidden=128, vocabulary=8192)
GPU_SIZES = [
    Size(tokens=tokens, hidden=hidden, vocabulary=vocabulary)
    for tokens in (2048, 8192, 32768)
    for hidden, vocabulary in ((576, 49152), (1024, 151936), (4096, 128256), (5120, 151936))
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way in one mode."""

    way: str
    kind: str
    size: Size
    mode: str
    median_s: float
    low_s: float
    """The fastest fifth is faster."""
    high_s: float
    """The slowest fifth is slower."""
    tflops_per_s: float
    """Of the products alone."""
    extra_mib: float | None
    """None for `backward`, which runs inside of `full`."""
    error_nats: float
    """Mean |Δ| of sampled log-probs from those of the same inputs in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What ran, and what did not."""

    device: str
    threads: int
    amx_bf16: bool
    rows: list[Row]
    missing: dict[str, str]
    """Way to the reason why it is not in `rows`."""


def measure(device: Device, rounds: int, *, quick: bool, say: Callable[[str], None]) -> Measured:
    """Every way at every size of the device. Raises SppoError where `cuda` is asked for and there
    is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SppoError(f"torch sees no GPU: {GPU_NEEDS}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    ways, missing = ways_of(device)
    sizes = [QUICK_SIZE] if quick else GPU_SIZES if device == "cuda" else [DEFAULT_SIZE]
    rows = []
    for size in sizes:
        say(f"{device}: T = {size.tokens}, H = {size.hidden}, V = {size.vocabulary} ...")
        found, failed = _measure_size(device, size, ways, rounds, say)
        rows += found
        missing |= failed
    if device == "cpu":
        say(f"on a CPU: {GPU_NEEDS}")
    cpu = Path("/proc/cpuinfo")
    return Measured(
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        amx_bf16=cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8"),
        rows=rows,
        missing=missing,
    )


def checks(found: Measured, *, quick: bool) -> list[Check]:
    """Exactness always; speed and memory at the size that the bars are meant for."""
    error = max(r.error_nats for r in found.rows if r.way == ACCURATE)
    judged = [at_most("logprob_error", error, MOST_ERROR, "nats, mean")]
    if quick or found.device != "cpu":
        return judged
    by = {(r.way, r.mode): r for r in found.rows}

    def ratio(mode: str, other: str, ours: str) -> float:
        return by[other, mode].median_s / by[ours, mode].median_s

    def share(mode: str, other: str, ours: str) -> float:
        return (by[ours, mode].extra_mib or math.nan) / (by[other, mode].extra_mib or math.nan)

    pairs = ((FULL_FLOAT32, ACCURATE), (FULL_BF16, FAST))

    peers = [r for r in found.rows if r.kind == "peer" and r.mode != "backward"]
    alike = [ratio(r.mode, r.way, ACCURATE if r.error_nats <= MOST_ERROR else FAST) for r in peers]
    of_time = [
        at_least("forward_accurate_ratio", ratio("forward", FULL_FLOAT32, ACCURATE), 2.0, "times"),
        at_least("full_accurate_ratio", ratio("full", FULL_FLOAT32, ACCURATE), 1.3, "times"),
        at_least("forward_fast_ratio", ratio("forward", FULL_BF16, FAST), 3.0, "times"),
        at_least("full_fast_ratio", ratio("full", FULL_BF16, FAST), 1.3, "times"),
        at_least("best_peer_ratio", min(alike, default=math.nan), 1.0, "times"),
    ]
    memory = max(share(m, *pair) for m in ("forward", "full") for pair in pairs)
    if not found.amx_bf16:
        of_time = [unjudged(check) for check in of_time]
    return [*of_time, at_most("memory_share", memory, 0.2, "share"), *judged]


# measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    hidden_TH: Tensor
    weight_VH: Tensor
    target_T: Tensor
    upstream_T: Tensor
    sample_S: Tensor
    exact_S: Tensor
    """Log-probs of the sampled tokens in float64."""


@dataclass(slots=True)
class _Figures:
    """What was seen of each way so far."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By way and mode."""
    extra: dict[tuple[str, str], float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def enough(self, way: Way) -> bool:
        """Whether a slow way has had its time."""
        spent = sum(self.seconds[way.name, "forward"]) + sum(self.seconds[way.name, "full"])
        return spent > MOST_SECONDS

    def add(self, way: Way, inputs: _Inputs, *, warm_up: bool) -> None:
        """Run it once in every mode. The first run compiles, and is not counted."""
        for mode, taken, mib, logprob_T in _run(way, inputs):
            gap_S = logprob_T[inputs.sample_S].double() - inputs.exact_S
            self.errors[way.name] = float(gap_S.abs().mean())
            if warm_up:
                continue
            self.seconds[way.name, mode].append(taken)
            if mib is not None:
                self.extra[way.name, mode] = max(mib, self.extra.get((way.name, mode), 0.0))

    def rows(self, way: Way, size: Size) -> list[Row]:
        """One for each mode."""
        return [self._row(way, size, mode) for mode in MODES]

    def _row(self, way: Way, size: Size, mode: str) -> Row:
        low, median, high = _quantiles(self.seconds[way.name, mode])
        flops = PRODUCTS[mode] * size.tokens * size.hidden * size.vocabulary
        return Row(
            way=way.name,
            kind=way.kind,
            size=size,
            mode=mode,
            median_s=median,
            low_s=low,
            high_s=high,
            tflops_per_s=flops / median / 1e12,
            extra_mib=self.extra.get((way.name, mode)),
            error_nats=self.errors[way.name],
        )


def _measure_size(
    device: str, size: Size, ways: Sequence[Way], rounds: int, say: Callable[[str], None]
) -> tuple[list[Row], dict[str, str]]:
    inputs, figures = _inputs(device, size), _Figures()
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for way in [w for w in ways if w.name not in failed and not figures.enough(w)]:
            say(f"  {f'round {number} of {rounds}' if number else 'warm-up'}: {way.name}")
            try:
                figures.add(way, inputs, warm_up=number == 0)
            except Exception as error:  # a peer that does not run here, or does not fit
                if way.kind == "ours":
                    raise
                reason = (str(error).strip().splitlines() or [""])[0][:200]
                failed[way.name] = (
                    f"failed at T = {size.tokens}, H = {size.hidden}: {type(error).__name__}: "
                    f"{reason}"
                )
    rows = [row for w in ways if w.name not in failed for row in figures.rows(w, size)]
    return rows, failed


def _inputs(device: str, size: Size) -> _Inputs:
    """Logits of standard deviation 2; targets at random, so that rare tokens are among them."""
    generator = torch.Generator().manual_seed(0)
    hidden_TH = torch.randn(size.tokens, size.hidden, generator=generator).bfloat16()
    weight_VH = (
        torch.randn(size.vocabulary, size.hidden, generator=generator) * 2 / size.hidden**0.5
    ).bfloat16()
    target_T = torch.randint(size.vocabulary, (size.tokens,), generator=generator)
    sample_S = torch.linspace(0, size.tokens - 1, min(SAMPLED_TOKENS, size.tokens)).long()
    exact_SV = (hidden_TH[sample_S].double() @ weight_VH.double().T).log_softmax(-1)
    exact_S = exact_SV.gather(-1, target_T[sample_S][:, None])[:, 0]
    upstream_T = torch.randn(size.tokens, generator=generator)
    tensors = (hidden_TH, weight_VH, target_T, upstream_T, sample_S, exact_S)
    names = ("hidden_TH", "weight_VH", "target_T", "upstream_T", "sample_S", "exact_S")
    return _Inputs(**{name: tensor.to(device) for name, tensor in zip(names, tensors, strict=True)})


def _run(way: Way, inputs: _Inputs) -> Iterator[tuple[str, float, float | None, Tensor]]:
    """(mode, seconds, extra MiB, log-probs) of one forward without and one forward and backward
    with a graph.
    """
    clock, memory = Clock(inputs.hidden_TH.is_cuda), Memory(inputs.hidden_TH.is_cuda)
    memory.reset()
    with torch.no_grad():
        clock.start()
        logprob_T = way.logprob(inputs.hidden_TH, inputs.weight_VH, inputs.target_T)
        forward_s = clock.lap()
    yield "forward", forward_s, memory.extra_mib(), logprob_T
    hidden_TH, weight_VH = (
        t.detach().requires_grad_() for t in (inputs.hidden_TH, inputs.weight_VH)
    )
    memory.reset()
    clock.start()
    logprob_T = way.logprob(hidden_TH, weight_VH, inputs.target_T)
    forward_s = clock.lap()
    (logprob_T * inputs.upstream_T).sum().backward()  # type: ignore[no-untyped-call]
    backward_s = clock.lap()
    yield "backward", backward_s, None, logprob_T.detach()
    yield "full", forward_s + backward_s, memory.extra_mib(), logprob_T.detach()


def _quantiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """(20 %, 50 %, 80 %)."""
    if len(seconds) == 1:
        return seconds[0], seconds[0], seconds[0]
    fifths = statistics.quantiles(seconds, n=5, method="inclusive")
    return fifths[0], statistics.median(seconds), fifths[3]
