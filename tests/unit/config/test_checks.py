"""What the sections of learning must agree on."""

from __future__ import annotations

from typing import Any

import pytest

from sppo import config
from sppo.config import (
    AdapterConfig,
    LearnerConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplingConfig,
    checks,
)
from sppo.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kappa": 0.5}, r"objective\.kappa = 0\.5: .* 'sppo' does not read it \(inpo would\)"),
        ({"name": "dpo", "weight": "none"}, r"objective\.weight = 'none': .* 'dpo' does not read"),
        ({"name": "grpo", "eta": 2}, r"objective\.eta = 2\.0: .*\(sppo and rspo and inpo would\)"),
        ({"params": {"x": 1}}, r"objective\.params .*\(one of your own would\)"),
        ({"reference_every": 2}, r"reference_every = 2: .* 'sppo' has no reference here"),
        ({"name": "inpo", "reference_every": 2}, "'inpo' has no reference here"),
    ],
)
def test_a_setting_that_the_objective_does_not_read_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        checks.read(ObjectiveConfig(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "mine:Loss", "kappa": 0.5, "params": {"x": 1}, "reference_every": 2},
        {"name": "inpo", "kappa": 0.5, "reference_every": 2},
        {"kl_coef": 0.1, "reference_every": 2},
        {"name": "dpo", "beta": 0.5},
        {"name": "grpo", "clip_high": 0.3, "weight": "token"},
        {"name": "rspo", "reverse_kl_coef": 0.3, "target": "softmean"},
    ],
)
def test_a_setting_that_the_objective_reads_is_taken(settings: dict[str, Any]) -> None:
    checks.read(ObjectiveConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({}, r"objective\.weight = 'geometric'"),
        ({"weight": "none", "reject": "token"}, r"objective\.reject = 'token'"),
        ({"weight": "none", "anchor": "behavior"}, r"objective\.anchor = 'behavior'"),
        ({"weight": "none"}, None),
        ({"name": "dpo"}, None),
        ({"temperature": 0.7}, None),
        ({"temperature": "sampling"}, None),
    ],
)
def test_another_temperature_than_the_samplers_has_no_correction(
    settings: dict[str, Any], wrong: str | None
) -> None:
    objective = ObjectiveConfig(**{"temperature": 1.0} | settings)
    sampling = SamplingConfig(temperature=0.7)
    if wrong is None:
        checks.temperature(objective, sampling)
        return
    with pytest.raises(ValueError, match=rf"objective\.temperature = 1\.0: {wrong} compares"):
        checks.temperature(objective, sampling)


@pytest.mark.parametrize(
    ("objective", "optimizer"),
    [
        ({"anchor": "iteration"}, {}),
        ({"reference_every": 1}, {}),
        ({}, {"restart": True}),
    ],
)
def test_an_iteration_is_whole_batches(
    objective: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    learner = LearnerConfig(mini_batches=2, epochs=3, steps=60)
    given = ObjectiveConfig(**{"iteration_steps": 100} | objective), OptimizerConfig(**optimizer)
    with pytest.raises(ValueError, match=r"mini_batches = 2 x epochs = 3 must divide .* = 100"):
        checks.iterations(*given, learner)
    checks.iterations(ObjectiveConfig(), OptimizerConfig(), learner)


@pytest.mark.parametrize(
    ("settings", "enough"),
    [
        ({"name": "dpo"}, False),
        ({"name": "grpo"}, False),
        ({"target": "softmean"}, False),
        ({"target": "batch_softmean", "link": "bradley-terry"}, False),
        ({"target": "batch_softmean"}, True),
        ({"name": "mine:Loss"}, True),
    ],
)
def test_one_completion_is_enough_for_few(settings: dict[str, Any], enough: bool) -> None:
    objective, sampling = ObjectiveConfig(**settings), SamplingConfig(completions=1)
    if enough:
        checks.completions(objective, sampling)
        return
    with pytest.raises(ValueError, match=r"sampling\.completions = 1: .* use 2 or more"):
        checks.completions(objective, sampling)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"alpha": 8}, r"adapter\.alpha = 8\.0"), ({"layers": ["q_proj"]}, r"adapter\.layers = ")],
)
def test_a_setting_of_adapters_is_refused_where_there_are_none(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words + r".*adapter\.rank = 0 .*does not read it"):
        checks.adapters(AdapterConfig(**settings))
    checks.adapters(AdapterConfig(**settings, rank=4))
    checks.adapters(AdapterConfig())


def test_where_machines_may_come_the_device_is_named() -> None:
    given = ["launch.room_wait_s=600", "learner.device=auto"]
    with pytest.raises(ConfigError, match=r"learner\.device = 'auto': .* set 'cuda' or 'cpu'"):
        config.load("cluster", given, environment=False)
    assert config.load("cluster", given[:1], environment=False).learner.device == "cuda"


@pytest.mark.parametrize(
    ("preset", "given", "words"),
    [
        ("quickstart", [], "launch.take_turns = true: it is for a GPU that learner and generators"),
        ("one-gpu", ["generator.engine=transformers"], "has the engine sleep, which only 'vllm'"),
    ],
)
def test_turns_are_taken_by_those_who_share_and_can_sleep(
    preset: str, given: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load(preset, ["launch.take_turns=true", *given], environment=False)
    config.load("one-gpu", ["launch.take_turns=true"], environment=False)


def test_other_machines_have_no_memory_with_the_learner() -> None:
    given = ["weights.transport=shared", "weights.host=10.0.0.1", "weights.trusted_network=true"]
    with pytest.raises(ConfigError, match=r"transport = 'shared': weights\.host = '10\.0\.0\.1'"):
        config.load("quickstart", given, environment=False)
    config.load("quickstart", given[:1], environment=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("learner.ranks=2", "learner.ranks = 2: launch.share_gpu = true puts learner and"),
        ("generator.tensor_parallel=2", "generator.tensor_parallel = 2"),
        ("generator.vllm={pipeline_parallel_size=2}", "generator.vllm = {'pipeline_parallel_size'"),
        ("weights.transport=nccl", "NCCL takes a GPU once; use 'gloo' or 'auto'"),
    ],
)
def test_one_gpu_cannot_be_two(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("one-gpu", [given], environment=False)
    assert words in str(caught.value)
