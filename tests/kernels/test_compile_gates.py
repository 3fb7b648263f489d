"""Every Triton kernel, compiled for sm_80, sm_90 and sm_100: it spills nothing, uses the tensor
cores, and is lean.

What this does not show is speed: no GPU is needed, and none is used.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from sppo.kernels import CAPS, tiles
from sppo.kernels.linear import gpu as linear
from sppo.kernels.linear import gpu_kernels as linear_kernels
from sppo.kernels.linear.call import Call, Upstream
from sppo.kernels.logits import gpu_kernels as logits_kernels
from sppo.kernels.logits.gpu import NUM_WARPS
from sppo.kernels.loss import gpu as loss
from sppo.kernels.loss import gpu_kernels as loss_kernels
from sppo.kernels.tiles import Architecture, Tile
from tests.kernels.gates import HEADER, SHARED_LIMIT, Compiled, compile_kernel, inspect, launches

WIDTHS = {"width", "hidden_stride", "weight_stride"}
MULTIPLES_OF_16 = {*WIDTHS, "gradient_stride", "stride"}
MOST_PER_LOGIT = {False: 15.0, True: 19.0}  # without and with the entropy, on sm_90

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ragged": {"even": False},
    "bias": {"bias": True},
    "softcap": {"softcap": 30.0},
    "everything": {
        "bias": True,
        "softcap": 30.0,
        "even": False,
        "multiples": MULTIPLES_OF_16 - WIDTHS,
    },
    "float32, everything": {"dtype": "fp32", "bias": True, "softcap": 30.0, "even": False},
}


def hold(found: Compiled, table: list[str]) -> None:
    """The gates of every kernel."""
    table += [found.row()] if table else [HEADER, found.row()]
    assert found.stack == found.local == 0
    assert found.float64 == 0
    assert found.shared <= SHARED_LIMIT[found.architecture]


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["forward", "gradient"])
def test_products(
    name: str,
    variant: str,
    entropy: bool,
    architecture: Architecture,
    tmp_path: Path,
    table: list[str],
) -> None:
    asked: dict[str, Any] = {
        "even": True,
        "bias": False,
        "softcap": None,
        "dtype": "bf16",
    } | VARIANTS[variant]
    tile = pick(name, architecture, asked)
    kernel = getattr(linear_kernels, f"{name}_kernel")
    constants: dict[str, Any] = {
        "SOFTCAP": asked["softcap"], "HAS_ENTROPY": entropy, "EVEN_V": asked["even"],
        "TMA": tile.tma, "PARTS": tile.parts,
        "PRECISION": "tf32x3" if asked["dtype"] == "fp32" else "tf32",
        "BM": tile.BM, "BN": tile.BN, "BK": tile.BK,
    }  # fmt: skip
    constants |= {"SPLIT": tiles.SPLIT} if name == "forward" else {}
    constants |= {} if asked["bias"] else {"bias": None}
    if not entropy:
        absent = ("weighted_ST",) if name == "forward" else ("entropy_grad_T",)
        constants |= dict.fromkeys(absent)
    compiled = compile_kernel(
        kernel, types(kernel, asked["dtype"], tile), constants,
        asked.get("multiples", MULTIPLES_OF_16), tmp_path,
        architecture=architecture, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    shape = f"{tile.BM}×{tile.BN}×{tile.BK} w{tile.num_warps} s{tile.num_stages}"
    title = f"{variant}{', entropy' if entropy else ''}"
    held = tile.BM * tile.BN / tile.num_warps / 32
    found = inspect(name, title, architecture, shape, held, compiled)
    hold(found, table)
    assert found.tensor_core > 0
    if architecture == 90 and variant == "plain":
        assert found.per_logit is not None
        assert found.per_logit <= MOST_PER_LOGIT[entropy]


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("variant", ["plain", "softcap", "odd stride"])
@pytest.mark.parametrize("name", ["logits_forward", "logits_gradient"])
def test_logits(
    name: str, variant: str, entropy: bool, architecture: int, tmp_path: Path, table: list[str]
) -> None:
    softcap = 30.0 if variant == "softcap" else None
    multiples = set() if variant == "odd stride" else MULTIPLES_OF_16
    kernel = getattr(logits_kernels, f"{name}_kernel")
    columns = tiles.LANE_COLUMNS if name == "logits_forward" else 1
    compiled = compile_kernel(
        kernel, types(kernel, "bf16"),
        {"SOFTCAP": softcap, "HAS_ENTROPY": entropy, "N": tiles.LANES}
        | ({"K": columns} if columns > 1 else {}),
        multiples, tmp_path, architecture=architecture, num_warps=NUM_WARPS, num_stages=3,
    )  # fmt: skip
    held = columns * tiles.LANES / NUM_WARPS / 32
    title = f"{variant}{', entropy' if entropy else ''}"
    hold(
        inspect(name, title, architecture, f"{columns}×{tiles.LANES} w{NUM_WARPS}", held, compiled),
        table,
    )


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_combine(architecture: int, tmp_path: Path, table: list[str]) -> None:
    kernel = linear_kernels.combine_kernel
    compiled = compile_kernel(
        kernel, types(kernel, "bf16"), {"HAS_ENTROPY": True, "BM": linear.COMBINED}, set(),
        tmp_path,
        architecture=architecture, num_warps=4, num_stages=3,
    )  # fmt: skip
    hold(
        inspect("combine", "entropy", architecture, f"{linear.COMBINED} w4", None, compiled),
        table,
    )


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("mode", CAPS)
def test_loss(mode: str, architecture: int, tmp_path: Path, table: list[str]) -> None:
    kernel = loss_kernels.sppo_loss_kernel
    switches = dict.fromkeys(("CENTERED", "LENGTH_NORMALIZED", "HAS_MASK", "WANT_GRADIENT"), True)
    compiled = compile_kernel(
        kernel, types(kernel, "bf16"),
        {"ETA": 1.7, "MODE": mode, "LIMIT": math.log(CAPS[mode]), "BLOCK": loss.BLOCK, **switches},
        set(), tmp_path, architecture=architecture, num_warps=loss.WARPS, num_stages=3,
    )  # fmt: skip
    hold(
        inspect(
            "sppo_loss",
            mode,
            architecture,
            f"{loss.BLOCK} w{loss.WARPS}",
            None,
            compiled,
        ),
        table,
    )


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_log_ratios(architecture: int, tmp_path: Path, table: list[str]) -> None:
    kernel = loss_kernels.sequence_log_ratios_kernel
    compiled = compile_kernel(
        kernel, types(kernel, "bf16"), {"HAS_MASK": True, "BLOCK": loss.BLOCK}, set(), tmp_path,
        architecture=architecture, num_warps=loss.WARPS, num_stages=3,
    )  # fmt: skip
    tile = f"{loss.BLOCK} w{loss.WARPS}"
    hold(inspect("log_ratios", "mask", architecture, tile, None, compiled), table)


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_launch_is_specialised_as_the_gates_assume(architecture: Architecture) -> None:
    tokens, width, vocabulary = 300, 576, 49152
    hidden_TH, weight_VH = (
        torch.zeros(tokens, width).bfloat16(),
        torch.zeros(vocabulary, width).bfloat16(),
    )
    some_T, target_T = torch.ones(tokens), torch.zeros(tokens, dtype=torch.int64)
    call = Call(
        hidden_TH=hidden_TH, weight_VH=weight_VH, bias=None, temperature_T=some_T,
        target_T=target_T, softcap=None, ignore_index=-100, return_entropy=True, fast=False,
        backend="triton",
    )  # fmt: skip
    forward_tile, backward_tile = tiles.FORWARD[architecture], tiles.BACKWARD[architecture]
    with launches(architecture) as seen:
        linear.forward(call, tile=forward_tile)
        upstream = Upstream(*[some_T] * 5, False, False, False)
        linear.backward(call, upstream, tile=backward_tile)
    assert [name for name, *_ in seen] == ["forward_kernel", "combine_kernel", "gradient_kernel"]
    for (name, found, aligned), tile in zip(seen, (forward_tile, None, backward_tile), strict=True):
        expected = types(getattr(linear_kernels, name), "bf16", tile)
        assert found == {n: t for n, t in expected.items() if n in found}
        pointers = {n for n, t in found.items() if t.startswith("*")}
        assert aligned == pointers | MULTIPLES_OF_16 & found.keys()


def pick(name: str, architecture: Architecture, asked: dict[str, Any]) -> Tile:
    if asked["dtype"] == "fp32":
        return tiles.FLOAT32[architecture]
    if name == "forward":
        return tiles.FORWARD[architecture]
    return (tiles.BACKWARD if asked["softcap"] is None else tiles.SOFTCAP_BACKWARD)[architecture]


def types(kernel: Any, dtype: str, tile: Tile | None = None) -> dict[str, str]:
    """Triton's type of each argument."""
    special = dict.fromkeys(
        ("hidden", "weight", "bias", "logits", "gradient", "gradient_TC"), f"*{dtype}"
    )
    special |= {"target": "*i64", "temperature": "*fp32", "clipped_N": "*i1", "mask": "*u8"}
    special |= dict.fromkeys(("cu_seqlens", "group_offsets"), "*i64") | {"normalizer": "*fp32"}
    if tile is not None and tile.tma:
        special["hidden"] = f"tensordesc<{dtype}[{tile.BM}, {tile.BK}]>"
        special["weight"] = f"tensordesc<{dtype}[{tile.BN}, {tile.BK}]>"
    return {
        n: special.get(n) or ("*fp32" if n.endswith(("_T", "_TC", "_ST", "_N", "_G")) else "i32")
        for n in kernel.arg_names
    }
