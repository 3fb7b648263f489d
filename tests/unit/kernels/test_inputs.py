"""Which path runs, and what the operations refuse."""

from __future__ import annotations

import pytest
import torch

from sppo.kernels import inputs

SOME = torch.zeros(2, 3)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_a_cpu_runs_torch(backend: inputs.Backend) -> None:
    assert inputs.pick_backend(backend, SOME) == "torch"


def test_triton_runs_on_a_cpu_only_in_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"'triton' with inputs torch\.float32 on cpu"):
        inputs.pick_backend("triton", SOME)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert inputs.pick_backend("triton", SOME) == "triton"
    assert inputs.pick_backend("auto", SOME) == "torch"
    with pytest.raises(ValueError, match="float64"):
        inputs.pick_backend("triton", SOME.double())


def test_a_name_that_is_not_known_lists_the_others() -> None:
    with pytest.raises(ValueError, match="'cuda': there are auto, triton, torch, reference"):
        inputs.pick_backend("cuda", SOME)  # type: ignore[arg-type]


def test_a_temperature_for_each_token_in_the_dtype_of_the_logits() -> None:
    low = SOME.bfloat16()
    assert inputs.spread_temperature(0.5, low).tolist() == [0.5, 0.5]
    assert inputs.spread_temperature(0.5, low).dtype is torch.float32
    assert inputs.spread_temperature(torch.tensor([1.0, 2.0]), SOME, 4.0).tolist() == [0.25, 0.5]
    assert inputs.spread_temperature(3.0, SOME, 2.0).tolist() == [1.5, 1.5]


def test_a_temperature_that_nobody_checks_is_nan_where_it_is_not_above_0() -> None:
    found_T = inputs.only_above_0(torch.tensor([1.0, 0.0, -2.0]))
    assert found_T.isnan().tolist() == [False, True, True]


def test_a_part_of_a_tensor_is_refused() -> None:
    class Part:
        full_tensor = None

    with pytest.raises(ValueError, match="weight_VH is a DTensor: expected a whole tensor"):
        inputs.check_whole(hidden_TH=SOME, weight_VH=Part(), bias=None)  # type: ignore[arg-type]


def test_a_result_that_is_not_finite_names_the_input_at_fault() -> None:
    fine, lost_T = torch.ones(2), torch.tensor([0.0, torch.nan])
    inputs.check_result(fine, first=lost_T)
    with pytest.raises(ValueError, match=r"second \[2\] holds NaN"):
        inputs.check_result(lost_T, first=fine, second=lost_T)
    with pytest.raises(ValueError, match=r"first \[2\]: the logits of a token are not finite"):
        inputs.check_result(lost_T, first=fine, second=None)


def test_what_does_not_hold_raises_with_its_words() -> None:
    inputs.require(torch.tensor(True), "not said")
    with pytest.raises(ValueError, match="said"):
        inputs.require(torch.tensor(False), "said")
