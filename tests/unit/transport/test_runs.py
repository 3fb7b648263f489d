"""Who is refused at the door of a run, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sppo import __version__, config
from sppo.errors import ConfigError
from sppo.transport import runs
from sppo.transport.runs import Run


@pytest.fixture
def mine() -> config.RunConfig:
    return config.load("quickstart", environment=False)


def test_a_role_of_the_same_version_and_settings_may_come(mine: config.RunConfig) -> None:
    record = Run.unpack("quickstart", Run.of(mine, "key").pack())
    assert record == Run.of(mine, "key")
    runs.check(record, mine, "generator")


@pytest.mark.parametrize(
    "own",
    [
        "generator.host=127.0.0.3",
        "generator.threads=1",
        "learner.ranks=2",
        "broker.outage_s=5",
        "learner.steps=9",
    ],
)
def test_what_is_a_role_s_own_affair_may_differ(mine: config.RunConfig, own: str) -> None:
    other = config.load("quickstart", [own], environment=False)
    assert other != mine
    runs.check(Run.of(mine, "key"), other, "generator")


def test_another_version_is_refused_with_both_named(mine: config.RunConfig) -> None:
    other = replace(Run.of(mine, "key"), version="9.9.9")
    with pytest.raises(
        ConfigError, match=rf"this scorer is sppo {__version__}.*opened by sppo 9\.9\.9"
    ) as caught:
        runs.check(other, mine, "scorer")
    assert "install the same" in str(caught.value)


def test_other_settings_are_refused_with_both_hashes_and_the_settings(
    mine: config.RunConfig,
) -> None:
    theirs = Run.of(
        config.load("quickstart", ["objective.eta=2", "seed=3"], environment=False), "key"
    )
    with pytest.raises(ConfigError) as caught:
        runs.check(theirs, mine, "generator")
    text = str(caught.value)
    for settings in (theirs.settings, Run.of(mine, "key").settings):
        assert runs.fingerprint(settings) in text
    assert "objective.eta is 1.0 here and 2.0 there" in text
    assert "seed is 0 here and 3 there" in text


def test_a_record_of_an_unknown_form_is_another_version() -> None:
    with pytest.raises(ConfigError, match="another version"):
        Run.unpack("quickstart", b'{"key": "x", "colour": "red"}')


def test_no_secret_is_written_where_others_read() -> None:
    secret = config.BrokerConfig(password="geheim")
    packed = Run.of(
        config.RunConfig(broker=secret, scorer=config.ScorerConfig(token="geheim")), "key"
    ).pack()
    assert b"geheim" not in packed
