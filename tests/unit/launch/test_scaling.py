"""A request to scale: how it is written, who gets it, and when it is fulfilled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs
from sppo.launch import scaling


def up(folder: Path, **fields: Any) -> None:
    """This process is the run's supervisor."""
    (folder / "config.toml").write_text('name = "a"\n')
    run_dirs.write_status(folder, fields)


def test_roles_may_be_one_or_many() -> None:
    assert scaling.parse(["generators=3", "scorer=2"]) == {"generator": 3, "scorer": 2}


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "say how many"),
        (["learners=2"], "write it as generators=3"),
        (["scorers"], "write it as"),
        (["generators=0"], "at least one"),
        (["generators=two"], "at least one"),
    ],
)
def test_what_cannot_be_read_is_refused(items: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        scaling.parse(items)


def test_a_request_is_left_for_a_supervisor_that_runs(tmp_path: Path) -> None:
    assert scaling.read(tmp_path) == {}
    up(tmp_path)
    identity = scaling.request(tmp_path, {"generator": 2})
    assert scaling.read(tmp_path) == {"id": identity, "wanted": {"generator": 2}}


def test_a_run_that_is_over_or_was_started_by_hand_takes_none(tmp_path: Path) -> None:
    up(tmp_path, by="learner")
    with pytest.raises(ConfigError, match="were started by hand"):
        scaling.request(tmp_path, {"generator": 2})
    (tmp_path / "status.json").unlink()
    with pytest.raises(ConfigError, match="nothing is running"):
        scaling.request(tmp_path, {"generator": 2})


def test_it_is_fulfilled_when_all_work_with_weights_and_nobody_is_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def members(*applied: str) -> dict[str, Any]:
        return {
            f"generator-{i}": {"role": "generator", "applied": a} for i, a in enumerate(applied)
        }

    answer = {"id": "x", "refused": "", "leaving": []}
    states = iter(
        [
            {"scale": {"id": "before"}},
            {"scale": answer, "members": members("a:1", "")},
            {"scale": answer | {"leaving": ["generator-2"]}, "members": members("a:1", "a:1")},
            {"scale": answer, "members": members("a:1", "a:1")},
        ]
    )
    up(tmp_path)
    monkeypatch.setattr(run_dirs, "running", lambda _: os.getpid())
    monkeypatch.setattr(run_dirs, "read_json", lambda _: next(states))
    monkeypatch.setattr(scaling, "POLL_S", 0.0)
    told: list[str] = []
    scaling.follow(tmp_path, "x", {"generator": 2}, told.append, timeout_s=5)
    assert told == [
        "1 of 2 generators at work",
        "2 of 2 generators at work; leaving: generator-2",
        "2 of 2 generators at work",
    ]


@pytest.mark.parametrize(
    ("scale", "timeout_s", "words"),
    [
        ({"id": "x", "refused": "no room", "leaving": []}, 5, "no room"),
        ({"id": "x", "refused": "", "leaving": []}, -1, "after -1 s 0 of 2 generators"),
    ],
)
def test_a_refusal_and_the_end_of_patience_are_said(
    scale: dict[str, Any], timeout_s: float, words: str, tmp_path: Path
) -> None:
    up(tmp_path, scale=scale)
    with pytest.raises(ConfigError, match=words):
        scaling.follow(tmp_path, "x", {"generator": 2}, print, timeout_s=timeout_s)
    (tmp_path / "status.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="has ended meanwhile"):
        scaling.follow(tmp_path, "x", {"generator": 2}, print, timeout_s=timeout_s)
