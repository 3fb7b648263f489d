"""The learner's part of a plan, against what torch's tracker counts of the real policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sppo import config
from sppo.config import RunConfig
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.plan import gpus, learner, trace
from sppo.plan.gpus import GIB
from tests import families, makers
from tests.unit.learner.tiny import settings
from tests.unit.plan import tracking

SHAPES = {  # model, step and devices of every preset
    "quickstart": False, "gsm8k": True, "paper": True, "math-7b": True, "cluster": True,
}  # fmt: skip


def seen(planned: learner.Rank) -> int:
    """The peak without what the tracker is not shown: snapshots, staged weights, the inside of
    `linear_logprob`.
    """
    hidden = ("snapshots", "staged weights")
    stands = sum(n for name, n in planned.stands.items() if name not in hidden)
    return stands + max(n for name, n in planned.moments.items() if name != "log-probs")


@pytest.mark.parametrize("preset", SHAPES)
def test_it_is_within_a_tenth_of_what_torch_tracks(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a preset with its model's widths and fewer layers
    name = config.load(preset, environment=False).model.name
    path = tracking.shrunk(name, 3, tmp_path)
    run = config.load(preset, [f"model.name={path}"], environment=False)
    # When torch tracks a step of the real policy
    tracked = tracking.peak(run, monkeypatch, gpu=SHAPES[preset])
    # Then the plan says the same
    assert seen(learner.rank(run, gpu=SHAPES[preset])) == pytest.approx(tracked, rel=0.1)


def test_of_machines_that_each_have_a_copy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    given = ["learner.ranks=4", "learner.shard=machine"]
    path = tracking.shrunk("Qwen/Qwen2.5-7B-Instruct", 3, tmp_path)
    run = config.load("cluster", [*given, f"model.name={path}"], environment=False)
    tracked = tracking.peak(run, monkeypatch, gpu=True)
    assert seen(learner.rank(run, gpu=True)) == pytest.approx(tracked, rel=0.1)


def test_other_presets_have_one_of_these_models() -> None:
    models = {config.load(preset, environment=False).model.name for preset in SHAPES}
    assert {config.load(preset, environment=False).model.name for preset in config.presets()} == (
        models
    )


def test_it_is_linear_in_the_layers(tmp_path: Path) -> None:
    def planned(layers: int) -> learner.Rank:
        path = tracking.shrunk("Qwen/Qwen2.5-1.5B-Instruct", layers, tmp_path / str(layers))
        return learner.rank(
            config.load("gsm8k", [f"model.name={path}"], environment=False), gpu=True
        )

    one, two, five = map(planned, (1, 2, 5))
    assert five.kept - one.kept == 4 * (two.kept - one.kept)
    assert five.peak - two.peak == 3 * (two.peak - one.peak)


def test_with_layers_computed_again_the_number_and_length_of_completions_do_not_matter() -> None:
    def planned(completions: int, tokens: int) -> learner.Rank:
        given = [f"sampling.completions={completions}", f"sampling.max_tokens={tokens}"]
        run = config.load("cluster", [*given, "learner.ranks=2"], environment=False)
        return learner.rank(run, gpu=True)

    assert planned(2, 7169).moments == planned(8, 4096).moments == planned(64, 1024).moments


def test_nor_do_they_in_a_real_step(tmp_path: Path) -> None:
    """Counted by the bytes of all that is alive at a time."""
    wide = AutoConfig.for_model(
        "llama", vocab_size=61, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(wide).save_pretrained(str(tmp_path))
    run = settings(micro_batch_tokens=64, recompute="on", groups_per_step=1)
    few, many = (_alive(str(tmp_path), run, completions) for completions in (4, 8))
    assert many < 1.05 * few


def _alive(path: str, run: RunConfig, completions: int) -> int:
    """Bytes at most in a step of one group, beside weights and what the first step left."""
    policy = Policy(
        path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32,
        recomputed=True,
    )  # fmt: skip
    trainer = Trainer(run, policy, Optimizer(run, policy.master))
    rng = np.random.default_rng(0)
    tokens = [makers.completion(rng.integers(0, 61, 20).tolist()) for _ in range(completions)]
    group = replace(
        makers.group(size=completions), prompt_ids=np.arange(8, dtype=np.int32),
        completions=tuple(tokens),
    )  # fmt: skip
    list(trainer.train([group], makers.V0))
    with trace.Live([*policy.master.values()]) as live:
        list(trainer.train([group], makers.V0))
    return live.peak


def test_a_7b_model_on_8_ranks_trains_completions_of_16_384_tokens() -> None:
    run = config.load("cluster", ["sampling.max_tokens=16384"], environment=False)
    planned = learner.rank(run, gpu=True)
    assert planned.tokens == 1024 + 16383  # one completion with its prompt
    assert planned.peak < 30 * GIB


def test_what_rank_0_alone_does_takes_less_than_a_step_of_all() -> None:
    """Its peak is that of the others: weights go out when no activations are there."""
    found = planned("cluster")
    alone = found.moments["a transfer of weights"]
    assert alone == 2 * 2**28
    assert alone < max(found.moments.values())
    assert alone < 2 * GIB  # nor would it be far beyond them otherwise
    assert found.peak == sum(found.stands.values()) + max(
        n for name, n in found.moments.items() if name != "a transfer of weights"
    )


def test_a_7b_model_with_adapters_trains_on_one_card_of_80_gb() -> None:
    """Completions of 4,096 tokens after 1,024 of a prompt."""
    given = ["sampling.max_tokens=4096", "learner.ranks=1", "adapter.rank=32"]
    run = config.load("cluster", given, environment=False)
    planned = learner.rank(run, gpu=True)
    assert planned.tokens == 8192
    assert planned.stands["frozen weights"] == 2 * 7_615_616_512
    assert planned.peak < gpus.named("80GB").usable


def test_moments_may_lie_in_host_memory() -> None:
    plain, away = planned("gsm8k"), planned("gsm8k", "optimizer.offload=true")
    largest = 4 * 2 * 151_936 * 1536
    assert "moments" not in away.stands
    assert away.moments["the optimizer"] == largest
    assert plain.peak - away.peak == plain.stands["moments"]


def test_snapshots_count_where_they_lie() -> None:
    assert planned("paper").stands["snapshots"] == 2 * 7_241_732_096 // 2
    assert "snapshots" not in planned("paper", "learner.snapshot=host").stands
    assert planned("cluster").stands["snapshots"] == 0


def test_torch_computes_log_probs_in_chunks_where_triton_does_not() -> None:
    triton, plain = planned("gsm8k"), planned("gsm8k", "learner.kernels=torch")
    assert plain.moments["log-probs"] > triton.kept
    assert plain.moments["log-probs"] != triton.moments["log-probs"]


def planned(preset: str, *given: str) -> learner.Rank:
    run: RunConfig = config.load(preset, list(given), environment=False)
    return learner.rank(run, gpu=True)


@pytest.mark.parametrize(("preset", "gpu"), [("gsm8k", True), ("quickstart", False)])
def test_few_layers_tell_of_all(preset: str, gpu: bool, tmp_path: Path) -> None:
    name = config.load(preset, environment=False).model.name
    path = tracking.shrunk(name, 6, tmp_path)
    run = config.load(preset, [f"model.name={path}", "compute=float32"], environment=False)
    given, found = learner.model(run)
    layout = learner.Layout.of(run, shares=True)
    told = learner._traced(run.model, None, layout, torch.float32, gpu, gpu)
    assert set(found.kinds) == {0}
    whole = trace.activations(
        given, layout.largest(), compute=torch.float32, recomputed=gpu, gpu=gpu
    )
    assert (told.kept, told.peak) == (whole.kept, whole.peak)


def test_the_few_end_like_all() -> None:
    """What counts at the peak is the last layer of some kind."""
    assert learner._few([0] * 28) == (2, 3)
    assert learner._few([0, 1, 1, 1, 1]) == (2, 3)
    assert learner._few([0, 1, 0, 1, 2, 1, 0, 1] * 4) == (6, 8)  # Jamba
    assert learner._few([0, 0, 0, 0, 0, 1] * 4 + [0, 0]) == (7, 8)  # Gemma 3
    assert learner._few([0, 1, 2]) == (3, 3)


def test_one_layer_of_each_kind_tells_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = families.tiny("deepseek_v3")  # its first layers are dense
    deep.num_hidden_layers, deep.first_k_dense_replace = 6, 1
    monkeypatch.setattr(learner.known, "config_of", lambda _: deep)
    run = makers.run_config(
        model={"name": "deep"}, task={"max_prompt_tokens": 4},
        sampling={"max_tokens": 4, "completions": 2}, learner={"micro_batch_tokens": 16},
    )  # fmt: skip
    given, found = learner.model(run)
    assert len(set(found.kinds)) == 2
    layers: list[int] = []
    real = trace.activations

    def counting(config: Any, *args: Any, **how: Any) -> trace.Activations:
        layers.append(config.num_hidden_layers)
        return real(config, *args, **how)

    monkeypatch.setattr(trace, "activations", counting)
    layout = learner.Layout.of(run, shares=found.family.shares).plain
    told = learner._traced(run.model, None, layout, torch.bfloat16, True, True)
    assert layers == [2, 3]
    whole = real(given, layout.largest(), compute=torch.bfloat16, recomputed=True, gpu=True)
    assert (told.kept, told.peak) == (whole.kept, whole.peak)
