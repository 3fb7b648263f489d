"""Addresses that mean the same on every machine."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import reach


def test_auto_is_the_address_by_which_the_broker_is_reached() -> None:
    given = config.load(
        "quickstart",
        [
            "generator.host=auto",
            "scorer.host=auto",
            "weights.trusted_network=true",
            "broker.url=redis://127.0.0.1:1",
        ],
        environment=False,
    )
    found = reach.addressed(given)
    assert (found.generator.host, found.scorer.host, found.weights.host) == ("127.0.0.1",) * 3


def test_a_cluster_needs_a_broker_that_all_reach() -> None:
    alone = config.load("quickstart", environment=False)
    reach.check_broker(alone)
    with pytest.raises(ConfigError, match=r"launch\.ray_address = 'auto' with an empty broker"):
        reach.check_broker(
            alone.model_copy(
                update={"launch": alone.launch.model_copy(update={"ray_address": "auto"})}
            )
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["broker.url=unix:///x"], r"broker\.url = 'unix:///x'"),
        (["broker.url=redis://127.0.0.1:1"], r"broker\.url = 'redis://127\.0\.0\.1:1'"),
        (["broker.url=rediss://10.0.0.1:1"], r"weights\.host = '127\.0\.0\.1'"),
    ],
)
def test_an_address_of_every_machine_is_refused_where_there_are_several(
    settings: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        reach.check_hosts(config.load("quickstart", settings, environment=False))


def test_a_broker_that_cannot_be_reached_has_no_address_of_ours() -> None:
    assert reach.own_address("unix:///x") == "127.0.0.1"
    with pytest.raises(ConfigError, match="no way there from this machine"):
        reach.own_address("redis://no.such.host.invalid:1")


def test_what_a_cluster_cannot_know_travels_and_nothing_else() -> None:
    own = {"HF_TOKEN": "t", "NCCL_DEBUG": "WARN", "MINE_A": "1", "PATH": "/bin", "HOME": "/h"}
    assert set(reach.travelling((), own)) == {"HF_TOKEN", "NCCL_DEBUG"}
    assert set(reach.travelling(("MINE_*", "HOME"), own)) == set(own) - {"PATH"}
