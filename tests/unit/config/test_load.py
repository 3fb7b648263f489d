"""From sources to a configuration: their order, and errors that name setting and mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_sources_override_each_other_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file, the environment and --set that disagree
    file = tmp_path / "a.toml"
    file.write_text("[optimizer]\nlr = 1e-5\n[learner]\nsteps = 10\n[objective]\neta = 2.0\n")
    monkeypatch.setenv("SPPO_LEARNER__STEPS", "20")
    monkeypatch.setenv("SPPO_OBJECTIVE__ETA", "3")
    # When they are loaded
    loaded = config.load(str(file), ["objective.eta=4", "name=mine"])
    # Then --set beats the environment, which beats the file, which beats the default
    assert (loaded.optimizer.lr, loaded.learner.steps, loaded.objective.eta) == (1e-5, 20, 4.0)
    assert loaded.name == "mine"
    assert loaded.learner.groups_per_step == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", ["optimizer.lrr", "no such setting"]),
        ("nonsense.key=1", ["nonsense", "no such setting"]),
        ("sampling.completions=1", ["sampling.completions = 1", "centered", "2 or more"]),
        ("objective.weight_cap=0.9", ["weight_cap = 0.9", "above 1"]),
        ("learner.kernels=cuda", ["learner.kernels", "cuda", "'auto', 'triton' or 'torch'"]),
        (
            "objective.label=hard",
            ["label = 'hard'", "target = 'half'", "best_worst", "not 'centered' and 'all'"],
        ),
        ("objective.target=quarter", ["objective.target", "quarter", "softmean"]),
        ("sampling.top_p=0.9", ["sampling.top_p: gone", "the whole distribution"]),
        ("sampling.min_p=0.9", ["sampling.min_p = 0.9", "truncates", "leave it out"]),
        ("optimizer.lr=-1", ["optimizer.lr", "-1"]),
        ("learner.mini_batches=3", ["mini_batches = 3", "groups_per_step = 8"]),
        ("broker.renew_s=50", ["broker.renew_s: gone", "broker.lease_s"]),
        ("broker.url=redis://me:secret@host", ["broker.url", "SPPO_BROKER__PASSWORD"]),
        ("learner.steps", ["--set", "section.setting=value"]),
    ],
)
def test_a_bad_setting_is_named_with_its_mend(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_each_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_OBJECTIVE__ETA", "2")
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    found = config.origins("quickstart", ["optimizer.lr=1e-6", "objective.eta=3"])
    assert found["optimizer.lr"] == (1e-6, "--set optimizer.lr")
    assert found["objective.eta"] == (3.0, "--set objective.eta")
    assert found["learner.steps"] == (60, "quickstart")
    assert found["task.params"][1] == "quickstart"
    assert found["objective.kl_coef"] == (0.0, "default")
    assert found["broker.password"] == ("(set)", "environment")
    assert "hunter2" not in str(found)


def test_no_password_is_shown_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in (
        ("SPPO_BROKER__URL", "redis://:hunter2@127.0.0.1:6379"),
        ("SPPO_SCORER__URL", "http://me:hunter2@127.0.0.1"),
        ("SPPO_BROKER__PASSWORD", "hunter2\udce9"),
    ):
        monkeypatch.setenv(variable, text)
        with pytest.raises(ConfigError) as caught:
            config.load("quickstart")
        assert "hunter2" not in str(caught.value)
        monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=4294967296", "seed = 4294967296: .*less than 4294967296"),
        ("seed=1732550000000", "seed = 1732550000000: .*less than 4294967296"),
        ("sampling.completions=4097", "sampling.completions = 4097: .*4096"),
        ("sampling.max_tokens=1000000000000", "sampling.max_tokens"),
        (
            "sampling.max_tokens=10000000",
            "completions = 8 of max_tokens = 10000000: one group may take",
        ),
        ("sampling.temperature=0.001", "sampling.temperature = 0.001: .*0.01"),
        ("learner.batch_timeout_s=1e10", "learner.batch_timeout_s"),
        ("objective.eta=1e300", "objective.eta"),
        ("optimizer.betas=[0.9, 1.0]", r"optimizer\.betas"),
        ("broker.max_bytes=99999999999999999999", "broker.max_bytes"),
        ("broker.url=redis://127.0.0.1:99999", "broker.url.*0-65535"),
        ("scorer.url=http://127.0.0.1:99999", "scorer.url.*0-65535"),
        ("scorer.url=http://", "scorer.url.*no host"),
        ("model.name=", "model.name = '': must not be empty"),
        ("task.prompt=", "task.prompt = '': must not be empty"),
        ("weights.host=", "weights.host = '': must not be empty"),
        ("task.prompt=R\udce9ponds {question}", "task.prompt.*not UTF-8"),
        ("seed=" + "9" * 5000, "--set seed"),
    ],
)
def test_a_value_that_would_fail_deep_in_a_run_is_refused_by_its_setting(
    override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load("quickstart", [override])
