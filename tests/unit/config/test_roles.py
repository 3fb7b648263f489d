"""[generator], [scorer], [weights], [launch] and [eval] by themselves."""

from __future__ import annotations

import pytest

from sppo.config import GeneratorConfig, ScorerConfig


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "must start with http:// or https://"),
        ("http://me:secret@host", "SPPO_SCORER__TOKEN"),
        ("http://", "names no host"),
        ("http://host:99999", "0-65535"),
    ],
)
def test_an_address_that_cannot_be_a_scorers_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScorerConfig(url=url)


def test_a_scorers_address_ends_without_a_slash() -> None:
    assert ScorerConfig(url="http://host:8001/").url == "http://host:8001"


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_an_engine_has_a_share_of_a_gpu(share: float) -> None:
    with pytest.raises(ValueError, match="gpu_memory_utilization"):
        GeneratorConfig(gpu_memory_utilization=share)
