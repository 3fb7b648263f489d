"""[scorer.judge] by itself, and its key on the way to the roles."""

from __future__ import annotations

from typing import Any

import pytest

from sppo import config
from sppo.config import JudgeConfig
from sppo.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "ftp://host"}, "must start with http:// or https://"),
        ({"url": "http://me:secret@host"}, "SPPO_SCORER__JUDGE__API_KEY"),
        ({"url": "http://"}, "names no host"),
        ({"samples": 4}, "raise temperature"),
        ({"max_cost": 5}, "needs prices"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeConfig(**settings)


def test_a_wrong_setting_of_the_judge_is_named_whole() -> None:
    with pytest.raises(ConfigError, match=r"scorer\.judge\.opponents = 0: .* greater than 0"):
        config.load("quickstart", ["scorer.judge.opponents=0"])
    with pytest.raises(ConfigError, match=r"scorer\.judge\.modle .*did you mean scorer\.judge"):
        config.load("quickstart", ["scorer.judge.modle=x"])


def test_the_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="SPPO_SCORER__JUDGE__API_KEY"):
        config.load("quickstart", ["scorer.judge.api_key=hunter2"])
    monkeypatch.setenv("SPPO_SCORER__JUDGE__API_KEY", "hunter2")
    monkeypatch.setenv("SPPO_SCORER__JUDGE__MODEL", "m")
    loaded = config.load("quickstart", ["scorer.judge.url=http://host:1/"])
    judge = loaded.scorer.judge
    assert (judge.api_key.get_secret_value(), judge.model, judge.url) == (
        "hunter2", "m", "http://host:1",
    )  # fmt: skip
    for text in (config.to_json(loaded), config.to_toml(loaded), repr(loaded)):
        assert "hunter2" not in text
    sent = config.with_secrets(
        config.from_json(config.to_json(loaded)), broker=loaded.broker, scorer_token="",
        judge_key="hunter2",
    )  # fmt: skip
    assert sent == loaded
