"""The number format of a run: what `auto` comes to on which processor, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo import compute
from sppo.config import RunConfig

CPUINFO = (
    "processor\t: 0\nmodel name\t: some processor\nflags\t\t: fpu {flags} avx2\n\nprocessor\t: 1\n"
)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("avx512f", "float32"),
        ("avx512_bf16", "bfloat16"),
        ("amx_bf16 amx_tile", "bfloat16"),
        ("amx_tile", "float32"),
    ],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(
    flags: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags=flags))
    features = compute.cpu_flags(tmp_path / "cpuinfo")
    monkeypatch.setattr(compute, "cpu_flags", lambda: features)
    run = RunConfig()
    assert compute.resolve(run, cuda=False) == found
    assert compute.resolve(run, cuda=True) == "bfloat16"
    negated = "does not multiply" in compute.reason(
        run, compute.resolve(run, cuda=False), cuda=False
    )
    assert negated is (found == "float32")


def test_what_is_asked_for_is_taken_on_every_processor() -> None:
    for asked, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        run = compute.resolved(RunConfig(compute=asked), cuda=False)  # type: ignore[arg-type]
        assert compute.dtype(run) is dtype
        assert compute.reason(run, run.compute, cuda=False) == f"compute = {asked!r}"  # type: ignore[arg-type]


def test_torch_sees_the_same_features_on_this_machine() -> None:
    here = compute.cpu_flags()
    assert ("avx512_bf16" in here) == torch.cpu._is_avx512_bf16_supported()
    assert ("amx_tile" in here) == torch.cpu._is_amx_tile_supported()


def test_without_a_list_of_features_auto_is_float32(tmp_path: Path) -> None:
    assert compute.cpu_flags(tmp_path / "none") == frozenset()
