"""Layers that are computed again give the same gradients, and keep their inputs alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sppo.errors import ConfigError
from sppo.families import Rows
from sppo.learner import batching
from sppo.learner.layers import decoder_layers, recompute
from sppo.learner.model import Logprobs, Policy
from sppo.types import Group
from tests import families
from tests.unit.learner.tiny import VOCABULARY

LAYERS = 6
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


@pytest.fixture(params=["Llama", "Qwen3", "Gemma2"], scope="module")
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of a family; Gemma 2 has sliding windows and soft caps."""
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    window = {"sliding_window": 4} if request.param == "Gemma2" else {}
    config = getattr(transformers, f"{request.param}Config")(**SIZES, **window)
    getattr(transformers, f"{request.param}ForCausalLM")(config).save_pretrained(folder)
    return str(folder)


def trained(
    path: str, groups: list[Group], *, recomputed: bool, compute: torch.dtype, rows: Rows
) -> tuple[dict[str, Tensor], int]:
    """Gradients of a loss of every log-prob and entropy, and the bytes kept for the backward."""
    policy = Policy(
        path, device="cpu", logprobs=Logprobs(temperature=0.7), compute=compute,
        recomputed=recomputed,
    )  # fmt: skip
    (parts,) = batching.plan(groups, 10**6, rows)
    batch = batching.collate(groups, parts, rows=rows, device="cpu")
    known = {p.data_ptr() for p in policy.module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logprob_T, entropy_T = policy.logprobs(batch, entropy=True)
        assert entropy_T is not None
        loss = (logprob_T**2).sum() + entropy_T.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return {k: p.grad for k, p in policy.master.items() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("rows", ["packed", "completion"])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_gradients_are_equal_to_the_bit_and_less_is_kept(
    deep: str, groups: list[Group], compute: torch.dtype, rows: Rows
) -> None:
    plain, kept = trained(deep, groups, recomputed=False, compute=compute, rows=rows)
    again, fewer = trained(deep, groups, recomputed=True, compute=compute, rows=rows)
    assert plain.keys() == again.keys() != set()
    assert all(torch.equal(gradient, again[name]) for name, gradient in plain.items())
    assert fewer < kept / 3


def test_without_gradients_nothing_is_kept(deep: str, groups: list[Group]) -> None:
    with torch.no_grad():
        policy = Policy(
            deep, device="cpu", logprobs=Logprobs(temperature=0.7), compute=torch.float32,
            recomputed=True,
        )  # fmt: skip
        (parts,) = batching.plan(groups, 10**6, "packed")
        batch = batching.collate(groups, parts, rows="packed", device="cpu")
        assert not policy.logprobs(batch)[0].requires_grad


def test_a_model_without_a_list_of_layers_is_refused_with_the_mend() -> None:
    class Odd(nn.Module):
        config: Any = type(
            "C", (), {"get_text_config": lambda _: type("T", (), {"num_hidden_layers": 3})}
        )()

    with pytest.raises(ConfigError, match=r"no list of 3 decoder layers; set learner.ranks = 1"):
        decoder_layers(odd := Odd(), odd, setting="learner.ranks = 1")


@pytest.mark.parametrize(("name", "times"), [("longcat_flash", 2), ("hrm_text", 4)])
def test_a_layer_that_attends_several_times_is_one_and_is_computed_again(
    name: str, times: int
) -> None:
    # Given a LongCat or the two stacks of an HRM, whose configurations count attentions
    import transformers

    torch.manual_seed(0)
    config = families.tiny(name)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(1, 9)[None]

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(input_ids=ids, use_cache=False).logits.square().mean().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    kept = gradients()
    # When its layers are computed again
    found = decoder_layers(model, model.model, setting="learner.recompute = 'off'")
    recompute(found)
    # Then they are fewer, and the gradients are the same
    assert times * len(found) == config.num_hidden_layers
    again = gradients()
    assert len(again) == len(kept) > len(found)
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
