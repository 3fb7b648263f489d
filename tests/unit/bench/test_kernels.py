"""What the kernel benchmark makes of its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.bench import kernels
from sppo.bench.kernel_ways import ACCURATE, FAST, FULL_BF16, FULL_FLOAT32
from sppo.bench.kernels import Measured, Row


def row(way: str, kind: str, mode: str, seconds: float, mib: float, error: float = 1e-6) -> Row:
    return Row(
        way=way, kind=kind, size=kernels.DEFAULT_SIZE, mode=mode, median_s=seconds, low_s=seconds,
        high_s=seconds,
        tflops_per_s=1.0, extra_mib=mib, error_nats=error,
    )  # fmt: skip


def measured(amx: bool = True) -> Measured:
    figures = {
        (ACCURATE, "ours"): (1.0, 4.0, 10.0, 30.0),
        (FAST, "ours"): (0.5, 2.0, 12.0, 20.0),
        (FULL_FLOAT32, "full"): (3.0, 6.0, 100.0, 200.0),
        (FULL_BF16, "full"): (2.0, 5.0, 50.0, 100.0),
        ("exact peer", "peer"): (1.5, 6.0, 20.0, 20.0),
    }
    rows = []
    for (way, kind), (forward_s, full_s, forward_mib, full_mib) in figures.items():
        rows += [
            row(way, kind, "forward", forward_s, forward_mib),
            row(way, kind, "full", full_s, full_mib),
        ]
    rows += [
        row("rounding peer", "peer", "forward", 0.7, 1.0, 2e-3),
        row("rounding peer", "peer", "full", 9.0, 1.0, 2e-3),
    ]
    return Measured(device="cpu", threads=1, amx_bf16=amx, rows=rows, missing={})


def test_ratios_are_of_the_same_run_mode_and_rounding() -> None:
    checks = kernels.checks(measured(), quick=False)
    assert {c.name: c.value for c in checks} == pytest.approx(
        {
            "forward_accurate_ratio": 3.0,
            "full_accurate_ratio": 1.5,
            "forward_fast_ratio": 4.0,
            "full_fast_ratio": 2.5,
            "memory_share": 0.24,
            "logprob_error": 1e-6,
            "best_peer_ratio": 1.4,  # the rounding peer's forward against the fast path
        }
    )
    assert [c.name for c in checks if not c.ok] == ["memory_share"]


def test_no_peer_is_no_pass() -> None:
    found = measured()
    alone = replace(found, rows=[r for r in found.rows if r.kind != "peer"])
    assert not next(c for c in kernels.checks(alone, quick=False) if c.name == "best_peer_ratio").ok


def test_without_amx_the_ratios_of_time_are_shown_and_not_judged() -> None:
    verdicts = {c.name: c.ok for c in kernels.checks(measured(amx=False), quick=False)}
    assert {name for name, ok in verdicts.items() if ok is None} == {
        n for n in verdicts if n.endswith("_ratio")
    }
    assert (verdicts["memory_share"], verdicts["logprob_error"]) == (False, True)


def test_without_a_gpu_the_grid_says_what_it_needs() -> None:
    done = CliRunner().invoke(app, ["bench", "kernels", "--device", "cuda"])
    assert done.exit_code != 0
    assert "compute capability 8.0" in str(done.exception)
