from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_trackers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load("quickstart", ['track.to=["wandb", "mlflow"]']).track.to == (
        "wandb",
        "mlflow",
    )
    with pytest.raises(ConfigError, match=r"track.to.*'tensorboard'.*'mlflow'"):
        config.load("quickstart", ['track.to=["wandbb"]'])


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_is_host_and_port(address: str, place: tuple[str, int]) -> None:
    assert config.MetricsConfig(address=address).place == place


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("9464", "in quotes"), ("127.0.0.1", "write host:port"),
        ("127.0.0.1:99999", "write host:port"), ("http://127.0.0.1:1", "write host:port"),
        ("127.0.0.1:1/metrics", "write host:port"), ("a@127.0.0.1:1", "write host:port"),
        ("0.0.0.0:9464", "name one address"),
    ],
)  # fmt: skip
def test_others_are_refused(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.load("quickstart", [f"metrics.address={address}"])


def test_beyond_loopback_it_wants_a_token_but_of_who_serves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPPO_METRICS__TOKEN", "secret")
    loaded = config.load("quickstart", ["metrics.address=10.0.0.1:9464"])
    assert loaded.metrics.place == ("10.0.0.1", 9464)
    assert not loaded.metrics.lacks_token
    # Roles get the settings without the secret, and so do those who read config.toml
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(loaded))
    for read in (
        config.from_json(config.to_json(loaded)),
        config.load(str(path), environment=False),
    ):
        assert read.metrics.lacks_token
    assert not config.load("quickstart").metrics.lacks_token
