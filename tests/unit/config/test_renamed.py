"""Old names of settings, from whatever source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo import config
from sppo.config import names
from sppo.config.renamed import NOW, REFUSED, RENAMED
from sppo.errors import ConfigError


def test_an_old_name_in_a_file_says_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text("[learner]\nlr = 1e-5\neta = 2.0\nsteps = 10\n")
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert str(caught.value) == (
        f"learner.lr: now optimizer.lr (from {file}); learner.eta: now objective.eta (from {file})"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SPPO_LEARNER__LR", "1e-5"), ("SPPO_LEARNER", '{"lr": 1e-5}')],
)
def test_an_old_name_in_the_environment_says_the_new_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=r"^learner\.lr: now optimizer\.lr \(from .*environment"):
        config.load("quickstart")


def test_an_old_name_after_set_says_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"^learner\.lr: now optimizer\.lr \(from --set"):
        config.load("quickstart", ["learner.lr=1e-5"])


def test_an_old_name_from_another_process_says_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"learner\.eta: now objective\.eta"):
        config.from_json(json.dumps({"learner": {"eta": 1.0}}))


def test_many_old_names_are_counted() -> None:
    old = {"learner": {name.removeprefix("learner."): 1 for name in NOW}}
    with pytest.raises(ConfigError) as caught:
        config.from_json(json.dumps(old))
    assert str(caught.value).count(": now ") == 8
    assert str(caught.value).endswith("; and 10 more (CHANGELOG.md lists them)")


@pytest.mark.parametrize("name", ["top_k", "min_p", "logit_bias", "min_tokens", "ignore_eos"])
def test_what_makes_the_sampler_another_distribution_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = rf"sampling\.{name} = .* the distribution that the off-policy correction divides by"
    with pytest.raises(ConfigError, match=wanted):
        config.load("quickstart", [f"sampling.{name}=1"])
    monkeypatch.setenv(f"SPPO_SAMPLING__{name.upper()}", "1")
    with pytest.raises(ConfigError, match=wanted):
        config.load("quickstart")


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    settings = set(names.keys())
    assert set(NOW.values()) <= settings
    assert not (RENAMED | REFUSED).keys() & settings
