"""Configuration: sources and their order, errors that name the setting, secrets that stay secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_sources_override_each_other_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file, the environment and --set that disagree
    file = tmp_path / "a.toml"
    file.write_text("[learner]\nlr = 1e-5\nsteps = 10\neta = 2.0\n")
    monkeypatch.setenv("SPPO_LEARNER__STEPS", "20")
    monkeypatch.setenv("SPPO_LEARNER__ETA", "3")
    # When they are loaded
    loaded = config.load(str(file), ["learner.eta=4", "name=mine"])
    # Then --set beats the environment, which beats the file, which beats the default
    assert (loaded.learner.lr, loaded.learner.steps, loaded.learner.eta) == (1e-5, 20, 4.0)
    assert loaded.name == "mine"
    assert loaded.learner.groups_per_step == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learner.lrr=1", ["learner.lrr", "no such setting"]),
        ("nonsense.key=1", ["nonsense", "no such setting"]),
        ("sampling.completions=1", ["sampling.completions = 1", "centered", "2 or more"]),
        ("learner.weight_cap=0.9", ["weight_cap = 0.9", "above 1"]),
        ("learner.kernels=cuda", ["learner.kernels", "cuda", "'auto', 'triton' or 'torch'"]),
        ("learner.label=hard", ["label = 'hard'", "target = 'half'", "best_worst", "not 'centered' and 'all'"]),
        ("learner.target=quarter", ["learner.target", "quarter", "softmean"]),
        ("sampling.top_p=0.9", ["sampling.top_p", "0.9", "use 1.0"]),
        ("learner.lr=-1", ["learner.lr", "-1"]),
        ("learner.mini_batches=3", ["mini_batches = 3", "groups_per_step = 8"]),
        ("broker.renew_s=50", ["renew_s = 50", "lease_s = 20"]),
        ("broker.url=redis://me:secret@host", ["broker.url", "SPPO_BROKER__PASSWORD"]),
        ("learner.steps", ["--set", "section.setting=value"]),
    ],
)
def test_a_bad_setting_is_named_with_its_mend(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_file_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        config.load("no-such-file.toml")


def test_secrets_appear_in_no_form_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    monkeypatch.setenv("SPPO_SCORER__TOKEN", "hunter2")
    loaded = config.load("quickstart")
    assert loaded.broker.password.get_secret_value() == "hunter2"
    for text in (config.to_json(loaded), config.to_toml(loaded), repr(loaded)):
        assert "hunter2" not in text


def test_json_carries_everything_but_secrets() -> None:
    loaded = config.load("quickstart", ["seed=3"])
    assert config.from_json(config.to_json(loaded)) == loaded


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert page.endswith(config.reference()), "run `make docs`"


def test_parsing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sppo import config; config.load('quickstart')\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_LEARNER__ETA", "2")
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    found = config.origins("quickstart", ["learner.lr=1e-6", "learner.eta=3"])
    assert found["learner.lr"] == (1e-6, "--set learner.lr")
    assert found["learner.eta"] == (3.0, "--set learner.eta")
    assert found["learner.steps"] == (60, "quickstart")
    assert found["task.params"][1] == "quickstart"
    assert found["learner.kl_coef"] == (0.0, "default")
    assert found["broker.password"] == ("(set)", "environment")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learner.lrr=1", ["--set learner.lrr", "did you mean learner.lr"]),
        ("lerner.lr=1", ["lerner", "did you mean learner"]),
        ("learner.zzzzzz=1", ["docs/configuration.md"]),
    ],
)
def test_an_unknown_setting_names_the_nearest_and_its_source(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_LEARNR__LR", "1")
    with pytest.raises(ConfigError, match="did you mean SPPO_LEARNER__LR"):
        config.load("quickstart")
