"""Which ranks share a model; meshes are made in tests/integration/test_hybrid.py."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.learner import mesh


def joined(hosts: str, machine: int = 2) -> list[dict[str, Any]]:
    return [{"host": host, "machine": machine} for host in hosts]


def test_ranks_of_a_machine_come_one_after_the_other() -> None:
    mesh.check(joined("aabb"), 2)
    mesh.check(joined("abab", 0), 0)
    with pytest.raises(ConfigError, match=r"ranks 0 to 1 \(LOCAL_WORLD_SIZE = 2\) are on a and b"):
        mesh.check(joined("abab"), 2)


def test_all_ranks_mean_the_same_mesh() -> None:
    with pytest.raises(ConfigError, match=r"^learner.shard: .* rank 2 shards over all ranks"):
        mesh.check([*joined("aa"), *joined("bb", 0)], 2)
