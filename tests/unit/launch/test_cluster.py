"""Ends of roles as Ray tells them, as errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions

from sppo.errors import ConfigError, RoleDiedError, RoleFailedError
from sppo.launch.cluster import Cluster, RoleProcess
from sppo.launch.room import Demand


class Ray:
    """The few names of Ray that are asked here."""

    exceptions = exceptions

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = dict
        self.killed: list[Any] = []

    def get(self, reference: Any) -> Any:
        return self.answer()

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


class Made(Cluster):
    """Without a Ray of its own."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._ray = self.ray = Ray()
        self.roles = {}

    def add(self, name: str) -> Future[Any]:
        ended: Future[Any] = Future()
        self.roles[name] = RoleProcess(name=name, actor=name, result="", ended=ended, place=None)
        return ended


@pytest.fixture
def cluster(tmp_path: Path) -> Made:
    made = Made(tmp_path)
    made.add("generator-0")
    return made


def ends(cluster: Made, error: Exception) -> str:
    def fail() -> None:
        raise error

    cluster.ray.answer = fail
    with pytest.raises(Exception) as told:  # noqa: PT011 - each test looks at it
        cluster.result("generator-0")
    assert cluster.ray.killed == ["generator-0"]
    assert cluster.roles == {}
    cluster.add("generator-0")
    cluster.ray.killed.clear()
    return f"{type(told.value).__name__}: {told.value}"


def raised(error: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("run", "the traceback", error)


def test_what_a_role_returns_is_its_outcome(cluster: Made) -> None:
    cluster.ray.answer = lambda: {"finished": True}
    assert cluster.result("generator-0") == {"finished": True}


def test_an_error_of_ours_comes_as_it_is_and_others_with_the_last_lines(cluster: Made) -> None:
    assert ends(cluster, raised(ConfigError("mend it"))) == "ConfigError: mend it"
    found = ends(cluster, raised(RuntimeError("ValueError: x\nmore")))
    assert found.startswith(f"{RoleFailedError.__name__}: generator-0 ended by itself (ValueError:")
    assert "(no log)" in found
    assert ends(cluster, exceptions.ActorDiedError()).startswith(RoleDiedError.__name__)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", "lower generator.kv_cache_gib"),
        ("ModuleNotFoundError: No module named 'vllm'", "install the `vllm` extra"),
        ("OSError: Address already in use", "another process holds a port"),
        ("Segmentation fault", "the whole log is in"),
    ],
)
def test_the_last_lines_give_a_hint(cluster: Made, tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "generator-0.log").write_text(f"{line}\n")
    found = ends(cluster, exceptions.ActorDiedError())
    assert line in found
    assert words in found


def test_who_has_ended_is_named_and_nobody_after_the_time(cluster: Made) -> None:
    ended = cluster.add("scorer-0")
    assert cluster.wait(0.01) is None
    ended.set_result(None)
    assert cluster.wait(5) == "scorer-0"


def test_what_is_asked_and_what_is_free_in_words(cluster: Made) -> None:
    assert cluster.describe(Demand(gpus=2, cpus=1)) == (
        "2 GPUs and 1 CPUs on one machine; 0 GPUs and 2 CPUs are free on all"
    )


def test_what_asks_for_nothing_has_room_anywhere(cluster: Made) -> None:
    assert cluster.reserve("scorer-0", Demand())
