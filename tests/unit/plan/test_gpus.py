"""GPUs by name and by size."""

from __future__ import annotations

import pytest

from sppo.errors import ConfigError
from sppo.plan import gpus
from sppo.plan.gpus import GIB


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("h100", int(79.1 * GIB)),
        ("A100_80", int(79.1 * GIB)),
        ("40GB", 40 * 10**9),
        ("40 gib", 40 * GIB),
        ("23.5GiB", int(23.5 * GIB)),
    ],
)
def test_names_and_sizes_are_known(text: str, nbytes: int) -> None:
    assert gpus.named(text).nbytes == nbytes


@pytest.mark.parametrize("text", ["", "h1000", "80", "GB", "1GB", "-40GB"])
def test_others_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"neither a size such as 40GB nor one of .*h100"):
        gpus.named(text)


def test_a_part_of_each_gpu_is_left_empty() -> None:
    gpu = gpus.named("80GB")
    assert gpu.usable == int(80e9 * 0.96) - GIB


def test_sizes_in_words() -> None:
    assert gpus.size(3 * GIB // 2) == "1.5 GiB"
    assert gpus.size(GIB // 4) == "256.0 MiB"
    assert gpus.size(1280) == "1.2 KiB"
