"""Frames on the learner's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.errors import SppoError
from sppo.learner.spool import QUARANTINED, Spool


def test_what_was_written_is_there_until_a_checkpoint_covers_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write({"train-1": b"one", "train-0": b"zero"})
    assert list(Spool(tmp_path).frames()) == [("train-0", b"zero"), ("train-1", b"one")]
    assert spool.frame("train-1") == b"one"
    assert spool.frame("train-2") is None
    (tmp_path / "spool" / ".train-3.partial").write_bytes(b"cut off")
    spool.drop(lambda uid: uid == "train-0")
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["train-1.frame"]


def test_a_disk_that_takes_nothing_is_said_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way of the folder")
    with pytest.raises(SppoError, match=r"spool: .*; free some disk space"):
        Spool(tmp_path).write({"train-0": b"zero"})


def test_refused_frames_are_kept_under_safe_names_and_not_without_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = spool.quarantine("../../etc/passwd", b"bad")
    assert path is not None
    assert path.parent == tmp_path / "quarantine"
    for i in range(QUARANTINED):
        spool.quarantine(str(i), b"bad")
    assert len(list(path.parent.iterdir())) == QUARANTINED
