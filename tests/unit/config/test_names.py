"""Names of settings, and what their fields say of them."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.errors import ConfigError

RESUME_MAY_CHANGE = {
    "broker.lease_s",
    "broker.max_bytes",
    "broker.max_groups",
    "broker.outage_s",
    "broker.tls_ca",
    "compute",
    "generator.cpus",
    "generator.vllm",
    "generator.gpu_memory_utilization",
    "generator.host",
    "generator.kv_cache_gib",
    "generator.max_groups",
    "generator.replicas",
    "generator.start_timeout_s",
    "generator.tensor_parallel",
    "generator.threads",
    "launch.environment",
    "launch.room_wait_s",
    "launch.share_gpu",
    "launch.take_turns",
    "launch.max_restarts",
    "launch.ray_address",
    "learner.batch_timeout_s",
    "learner.cpus",
    "learner.keep_checkpoints",
    "learner.keep_groups",
    "learner.keep_samples",
    "learner.kernels",
    "learner.micro_batch_tokens",
    "learner.parity_threshold",
    "learner.ranks",
    "learner.recompute",
    "learner.shard",
    "learner.snapshot",
    "learner.steps",
    "learner.threads",
    "metrics.address",
    "model.export_dtype",
    "scorer.cpus",
    "scorer.gpus",
    "scorer.host",
    "scorer.options",
    "scorer.judge.cache",
    "scorer.judge.max_calls",
    "scorer.judge.max_concurrency",
    "scorer.judge.max_cost",
    "scorer.judge.prices",
    "scorer.judge.timeout_s",
    "scorer.judge.url",
    "scorer.port",
    "scorer.replicas",
    "scorer.timeout_s",
    "optimizer.max_skipped",
    "optimizer.offload",
    "track.to",
    "weights.host",
    "weights.phase_timeout_s",
    "weights.trusted_network",
}
ONLY_ROLES_MAY_DIFFER = {
    "broker.max_attempts",
    "broker.url",
    "broker.username",
    "generator.engine",
    "learner.checkpoint_every",
    "learner.device",
    "scorer.mode",
    "scorer.url",
}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", ["--set optimizer.lrr", "did you mean optimizer.lr"]),
        ("lerner.lr=1", ["lerner", "did you mean learner"]),
        ("learner.zzzzzz=1", ["docs/configuration.md"]),
    ],
)
def test_an_unknown_setting_names_the_nearest_and_its_source(
    override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Learner.steps=5", ["--set Learner.steps", "no such setting", "did you mean learner?"]),
        ("LEARNER.STEPS=3", ["LEARNER", "no such setting", "did you mean learner?"]),
        ("learner.Steps=5", ["learner.Steps", "no such setting", "did you mean learner.steps?"]),
        ("Seed=1", ["Seed", "no such setting", "did you mean seed?"]),
    ],
)
def test_a_setting_in_another_case_is_no_setting(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_check_may_change_on_resume_as_its_message_says() -> None:
    assert {"learner.parity_threshold", "compute"} <= config.RESUME_MAY_CHANGE


def test_a_second_up_may_change_how_long_and_where_but_not_what_is_learned() -> None:
    assert config.RESUME_MAY_CHANGE == RESUME_MAY_CHANGE


def test_roles_may_differ_in_the_same_but_what_they_agree_on_and_in_their_own_affairs() -> None:
    assert (
        RESUME_MAY_CHANGE - {"compute", "launch.take_turns"}
    ) | ONLY_ROLES_MAY_DIFFER == config.ROLES_MAY_DIFFER


def test_what_is_secret_is_said_by_its_type() -> None:
    assert set(config.SECRETS) == {
        "broker.password", "scorer.token", "scorer.judge.api_key", "metrics.token",
    }  # fmt: skip


def test_a_key_within_a_table_belongs_to_the_tables_setting() -> None:
    names = ["scorer.options.parts.weight", "scorer.options", "task.params.max_terms", "seed"]
    assert list(map(config.setting, names)) == [
        "scorer.options", "scorer.options", "task.params", "seed",
    ]  # fmt: skip


def test_options_of_a_scorer_hold_what_toml_holds_and_may_differ() -> None:
    overrides = ["scorer.options.model=x", "scorer.options.parts=[{name='math', weight=0.5}]"]
    overrides += ["scorer.options.link.scale=2"]
    loaded = config.load("quickstart", overrides)
    options = {"model": "x", "parts": [{"name": "math", "weight": 0.5}], "link": {"scale": 2}}
    assert loaded.scorer.options == options
    assert config.from_json(config.to_json(loaded)) == loaded
    assert config.identity(loaded) == config.identity(config.load("quickstart"))
    shown = config.origins("quickstart", overrides)["scorer.options"]
    assert shown == (options, "--set scorer.options.link.scale")
    with pytest.raises(ConfigError, match=r"scorer\.options.*parts\[0\]\.at must be text"):
        config.load("quickstart", ["scorer.options.parts=[{at=2026-01-01}]"])
