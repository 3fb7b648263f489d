"""Compile a Triton kernel for a GPU that is not there, and read what came out.

The wheel brings ptxas and cuobjdump. A kernel is specialised as its launch would: pointers, and the
integers named, are multiples of 16.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.jit import JITFunction

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
TENSOR_CORE = {80: r"HMMA", 90: r"HGMMA", 100: r"UTC\w*MMA"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What one kernel became."""

    name: str
    variant: str
    architecture: int
    tile: str
    registers: int
    stack: int
    """Bytes a thread, spills included."""
    local: int
    """Local loads and stores."""
    shared: int
    """Bytes a program."""
    tensor_core: int
    """Instructions of the architecture's tensor cores."""
    float64: int
    """Mentions of .f64 in the PTX."""
    per_logit: float | None
    """Instructions in the whole kernel, by the logits of one tile that a thread holds."""

    def row(self) -> str:
        per_logit = "" if self.per_logit is None else f"{self.per_logit:.1f}"
        return (
            f"{self.name:16}{self.variant:29}sm_{self.architecture:<5}{self.tile:21}{self.registers:>5}{self.stack:>7}"
            f"{self.local:>7}{self.shared:>9}{self.tensor_core:>6}{self.float64:>5}{per_logit:>7}"
        )


HEADER = (
    f"{'kernel':16}{'variant':29}{'gpu':8}{'tile':21}{'regs':>5}{'stack':>7}{'local':>7}{'shared':>9}{'MMA':>6}{'f64':>5}"
    f"{'/logit':>7}"
)


def compile_kernel(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    multiples_of_16: set[str],
    folder: Path,
    *,
    architecture: int,
    num_warps: int,
    num_stages: int,
) -> tuple[Any, list[str], str]:
    """(Triton's result, the SASS opcodes, cuobjdump's listing with the resources)."""
    names = kernel.arg_names
    aligned = [
        n
        for n in names
        if n not in constants and (types[n].startswith("*") or n in multiples_of_16)
    ]
    source = ASTSource(
        fn=kernel,
        signature={n: "constexpr" if n in constants else types[n] for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    options = {"num_warps": num_warps, "num_stages": num_stages}
    found = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    file = folder / "kernel.cubin"
    file.write_bytes(found.asm["cubin"])
    ran = subprocess.run(
        [CUOBJDUMP, "-sass", "-res-usage", file], capture_output=True, text=True, check=True
    )
    dump = ran.stdout + ran.stderr
    opcodes = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", dump, re.M)
    return found, [o for o in opcodes if o != "NOP"], dump


def inspect(
    name: str,
    variant: str,
    architecture: int,
    tile: str,
    logits: float | None,
    compiled: tuple[Any, list[str], str],
) -> Compiled:
    """The figures of one compiled kernel; `logits` are those of a tile that one thread holds."""
    found, opcodes, usage = compiled

    def count(pattern: str) -> int:
        return sum(bool(re.match(pattern, opcode)) for opcode in opcodes)

    resources = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert resources, usage
    return Compiled(
        name=name,
        variant=variant,
        architecture=architecture,
        tile=tile,
        registers=int(resources[1]),
        stack=int(resources[2]),
        local=count("LDL|STL"),
        shared=found.metadata.shared,
        tensor_core=count(TENSOR_CORE[architecture]),
        float64=found.asm["ptx"].count(".f64"),
        per_logit=len(opcodes) / logits if logits else None,
    )


class AbsentGpu:
    """What Triton asks a driver before it compiles."""

    def __init__(self, architecture: int) -> None:
        self._target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def launches(architecture: int) -> Iterator[list[tuple[str, dict[str, str], set[str]]]]:
    """Every launch inside is compiled for this architecture and not run.

    Yields (kernel, types of its arguments, those specialised to multiples of 16). Without a GPU the
    driver that is not there stays: Triton cannot go back to none.
    """
    seen: list[tuple[str, dict[str, str], set[str]]] = []
    plain = JITFunction.__getitem__

    def take(kernel: Any, grid: Any) -> Any:
        def record(*arguments: Any, **options: Any) -> None:
            source = kernel.warmup(*arguments, grid=grid, **options).src
            aligned = {
                kernel.arg_names[i[0]]
                for i, v in source.attrs.items()
                if ["tt.divisibility", 16] in v
            }
            types = {name: str(t) for name, t in source.signature.items() if t != "constexpr"}
            seen.append((kernel.fn.__name__, types, aligned))

        return record

    driver.set_active(AbsentGpu(architecture))
    JITFunction.__getitem__ = take
    try:
        yield seen
    finally:
        JITFunction.__getitem__ = plain
        if torch.cuda.is_available():
            driver.reset_active()
