"""The whole plan: every preset on what it names, in words and as figures."""

from __future__ import annotations

import json

import pytest

from sppo import config
from sppo.plan import gpus, roles, table

NAMED = {  # what the head of each preset names
    "quickstart": "", "quickstart-preferences": "", "gsm8k": "40GB", "math": "40GB",
    "ultrafeedback": "40GB", "paper": "h100", "math-7b": "h100", "cluster": "h100",
    "one-gpu": "l4", "two-gpus": "40GB", "eight-gpus": "a100-80",
}  # fmt: skip


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_fits_on_the_devices_that_it_names(preset: str) -> None:
    run = config.load(preset, ["learner.device=cpu"] if not NAMED[preset] else None)
    plan = table.made(run, NAMED[preset], 10e9)
    assert plan.refusals == ()
    assert plan.figures()["fits"]


def test_figures_are_plain() -> None:
    run = config.load("math-7b", environment=False)
    figures = json.loads(json.dumps(table.made(run, "a100-40", 1e9).figures()))
    assert not figures["fits"]
    assert figures["peak"]["rank"] == sum(figures["rank"]["stands"].values()) + max(
        figures["rank"]["moments"].values()
    )
    assert figures["sync"]["seconds"] == pytest.approx(15.2, abs=0.1)


def test_lines_name_what_is_largest() -> None:
    run = config.load("math-7b", environment=False)
    text = "\n".join(table.lines(table.made(run, "h100", 10e9)))
    assert "7.62 billion parameters, bfloat16, on GPUs of 79.1 GiB (h100)" in text
    assert "learner, rank 0 of 3: micro-batches of 2,048 tokens, layers computed again" in text
    for row in ("master weights", "moments", "peak", "key-value cache", "groups in flight"):
        assert f"  {row}" in text
    assert "1.5 s at 10 GB/s" in text


def test_without_a_gpu_named_it_is_what_up_would_take_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, asked = config.load("quickstart"), config.load("math-7b")
    monkeypatch.setattr(gpus, "here", lambda: None)
    assert table.made(run, "", 1e9).gpu is None
    assert table.made(asked, "", 1e9).gpu == gpus.named("h100")
    small = gpus.named("l4")
    monkeypatch.setattr(gpus, "here", lambda: small)
    assert table.made(run, "", 1e9).gpu == small


def test_a_machine_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = config.load("quickstart", ["learner.device=cpu"])
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("M", (), {"total": 2**30})())
    (words,) = table.made(run, "", 1e9).refusals
    assert words.startswith("model.name = 'smollm2-135m': ")
    assert "this machine has 1.0 GiB" in words


def test_one_gpu_holds_learner_and_generator() -> None:
    whole = ["adapter.rank=0", "generator.kv_cache_gib=24"]
    assert table.made(config.load("one-gpu", whole), "h100", 10e9).refusals == ()
    alone = table.made(config.load("one-gpu", ["launch.share_gpu=false"]), "l4", 10e9)
    plan = table.made(config.load("one-gpu"), "l4", 10e9)
    assert plan.gpu is not None
    assert alone.gpu is not None
    assert plan.gpu.usable + plan.gpu.taken == alone.gpu.usable
    assert plan.gpu.taken > plan.generator.peak
    assert any("generators, on the same GPU" in line for line in table.lines(plan))
    # Who takes turns has the whole card for whoever is larger, and is told of the other too
    apart = table.made(config.load("one-gpu", ["launch.take_turns=true"]), "l4", 10e9)
    assert apart.gpu is not None
    assert apart.gpu.usable - plan.gpu.usable == plan.generator.peak
    assert apart.refusals == ()
    assert apart.sampling == plan.generator.peak + sum(plan.rank.stands.values())
    assert any("in the engines' turn" in line for line in table.lines(apart))
    other = config.load("one-gpu", ["generator.engine=transformers"])
    assert roles.beside(other, alone.gpu) == plan.gpu.taken + plan.generator.weights
    turns = ["launch.take_turns=true", "generator.kv_cache_gib=20"]
    (full,) = table.made(config.load("one-gpu", turns), "l4", 10e9).refusals
    assert full.startswith("generator.kv_cache_gib = 20: in their turn engines take 2")
    mended = [turns[0], full.rpartition("set ")[2].replace(" = ", "=")]
    assert table.made(config.load("one-gpu", mended), "l4", 10e9).refusals == ()
    # What does not fit beside it names no second rank as the mend
    (refused,) = table.made(config.load("one-gpu", ["adapter.rank=0"]), "l4", 10e9).refusals
    assert refused.endswith("set adapter.rank = 32")
    (small,) = table.made(
        config.load("one-gpu", ["generator.kv_cache_gib=0.01"]), "l4", 1e10
    ).refusals
    assert small.endswith("set it to 0.03")
