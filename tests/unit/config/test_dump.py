"""A configuration on its way elsewhere: whole, and without secrets."""

from __future__ import annotations

import pytest

from sppo import config


def test_secrets_appear_in_no_form_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    monkeypatch.setenv("SPPO_SCORER__TOKEN", "hunter2")
    monkeypatch.setenv("SPPO_METRICS__TOKEN", "hunter2")
    loaded = config.load("quickstart")
    assert loaded.broker.password.get_secret_value() == "hunter2"
    for text in (config.to_json(loaded), config.to_toml(loaded), repr(loaded)):
        assert "hunter2" not in text


def test_json_carries_everything_but_secrets() -> None:
    loaded = config.load("quickstart", ["seed=3"])
    assert config.from_json(config.to_json(loaded)) == loaded
