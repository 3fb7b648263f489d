"""A learner's ranks on several machines: what each is told, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.config import BrokerConfig, RunConfig
from sppo.errors import RoleDiedError
from sppo.launch import spread
from sppo.launch.spread import Part
from sppo.learner.place import Place

START = subprocess.Popen
RANK = """
import json, os, sys
given = json.loads(sys.stdin.read())
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
with open({folder!r} + "/" + os.environ["RANK"], "w") as file:
    json.dump([os.environ[n] for n in names] + [given["broker"]["password"]], file)
sys.exit(int(os.environ["RANK"] in {failing!r}))
"""


def ranks_are(
    monkeypatch: pytest.MonkeyPatch, folder: Path, failing: tuple[str, ...] = ()
) -> RunConfig:
    """Ranks that write down what they were told, and end."""
    script = RANK.format(folder=str(folder), failing=failing)

    def other(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert command[1:] == ["-m", "sppo.learner.follower", "--placed"]
        return START([sys.executable, "-S", "-c", script], **options)

    monkeypatch.setattr(spread.subprocess, "Popen", other)
    run = config.load("quickstart", ["learner.ranks=4"], environment=False)
    secret: Any = "secret"
    return run.model_copy(update={"broker": BrokerConfig(url="unix:///s", password=secret)})


def no_learner(place: Place | None) -> dict[str, Any]:
    raise AssertionError("only the first part has rank 0")


def test_the_first_part_is_rank_0_and_starts_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = ranks_are(monkeypatch, tmp_path), []

    def learn(place: Place | None) -> dict[str, Any]:
        seen.append(place)
        return {"finished": True}

    assert spread.run(run, Part(number=0, of=2), ("127.0.0.1", 29500), learn) == {"finished": True}
    (place,) = seen
    assert place is not None
    assert (place.rank, place.size, place.local, place.port) == (0, 4, 0, 29500)
    told = json.loads((tmp_path / "1").read_text())
    assert told == ["1", "4", "1", "2", "127.0.0.1", "29500", "secret"]


def test_another_part_starts_all_of_its_ranks_and_one_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, at = Part(number=1, of=2), ("127.0.0.1", 29500)
    assert spread.run(ranks_are(monkeypatch, tmp_path), part, at, no_learner) == {}
    told = [json.loads((tmp_path / rank).read_text())[:4] for rank in ("2", "3")]
    assert told == [["2", "4", "0", "2"], ["3", "4", "1", "2"]]
    run = ranks_are(monkeypatch, tmp_path, ("3",))
    with pytest.raises(RoleDiedError, match=r"rank 3 of the learner, on .*, ended with 1"):
        spread.run(run, part, at, no_learner)


def test_ranks_end_with_the_learner_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    class Lasting:
        stdin = subprocess.PIPE

        def __init__(self, *_: Any, **__: Any) -> None:
            self.stdin = open(tmp_path / "in", "wb")  # type: ignore[assignment]  # noqa: SIM115

        def kill(self) -> None:
            ended.append("killed")

        def wait(self) -> None: ...

    run = ranks_are(monkeypatch, tmp_path)
    monkeypatch.setattr(spread.subprocess, "Popen", Lasting)

    def learn(_: Place | None) -> dict[str, Any]:
        raise RoleDiedError("gone")

    with pytest.raises(RoleDiedError, match="gone"):
        spread.run(run, Part(number=0, of=2), ("127.0.0.1", 1), learn)
    assert ended == ["killed"]


def test_where_they_meet_is_free_and_parts_have_names() -> None:
    host, port = spread.meeting(config.load("quickstart", environment=False))
    assert host == "127.0.0.1"
    assert port > 1023
    assert [Part(number=i, of=2).name("learner-0") for i in (0, 1)] == ["learner-0", "learner-0.1"]
