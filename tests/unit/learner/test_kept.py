"""Which batches are kept, and what is read of them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from sppo.errors import ConfigError
from sppo.learner import kept
from sppo.learner.kept import Kept
from sppo.types import Version
from tests import makers


def at(n: int) -> Version:
    return Version(epoch="e1", n=n)


def test_a_batch_comes_back_as_it_was(tmp_path: Path) -> None:
    groups = makers.random_groups(np.random.default_rng(0), 3, vocabulary=61)
    Kept(tmp_path, makers.training().learner).keep(groups, at(4), at(3))
    ((first, path),) = kept.files(tmp_path / "groups").items()
    found = kept.read(path)
    assert (first, found.version, found.published) == (5, at(4), at(3))
    assert [group.uid for group in found.groups] == [group.uid for group in groups]
    pairs = zip(found.groups, groups, strict=True)
    for again, group in pairs:
        np.testing.assert_array_equal(again.rewards, group.rewards)
        for one, other in zip(again.completions, group.completions, strict=True):
            np.testing.assert_array_equal(one.token_ids, other.token_ids)
            np.testing.assert_array_equal(one.behavior_logprobs, other.behavior_logprobs)
            assert one.spans == other.spans


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"keep_groups": 3}, [8, 9, 10]),
        ({"keep_groups": 1}, [10]),
        ({"keep_groups": 0}, []),
        ({"keep_groups": 4, "mini_batches": 2}, [7, 9]),
    ],
)
def test_the_newest_steps_are_kept(
    tmp_path: Path, settings: dict[str, int], left: list[int]
) -> None:
    config = makers.training(**settings).learner
    for n in range(0, 10, config.steps_per_batch):
        Kept(tmp_path, config).keep([makers.group()], at(n), at(n))
    assert list(kept.files(tmp_path / "groups")) == left


def test_what_a_line_that_was_given_up_kept_goes(tmp_path: Path) -> None:
    keeper = Kept(tmp_path, makers.training().learner)
    for n in (0, 1, 2, 1):
        keeper.keep([makers.group()], at(n), at(n))
    assert list(kept.files(tmp_path / "groups")) == [1, 2]


def test_a_full_disk_leaves_nothing_half_written_and_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Kept(tmp_path, makers.training(keep_groups=2).learner)
    for n in (0, 1):
        keeper.keep([makers.group()], at(n), at(n))

    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        keeper.keep([makers.group()], at(2), at(2))
    assert [path.name for path in (tmp_path / "groups").iterdir()] == ["step-000002.groups"]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x81\xa7version\xa3e:1"])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "step-000001.groups"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"step-000001.groups is damaged"):
        kept.read(path)
