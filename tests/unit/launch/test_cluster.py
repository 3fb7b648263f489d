"""Ends of roles as Ray tells them, as errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from sppo.errors import ConfigError, RoleDiedError, RoleFailedError
from sppo.launch import own_ray
from sppo.launch import run_dir as run_dirs
from sppo.launch.cluster import Cluster, RoleProcess, _first_end
from sppo.launch.places import Places


class Ray:
    """The few names of Ray that are asked here."""

    exceptions = exceptions

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = dict
        self.killed: list[Any] = []
        self.wait: Callable[..., Any] = lambda parts, **_: (parts, [])

    def get(self, reference: Any, **_: Any) -> Any:
        return self.answer()

    def remote(self, _: Any) -> Any:
        return self

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=lambda *_: "a sweep")

    def cancel(self, reference: Any) -> None:
        self.killed.append(reference)

    def nodes(self) -> list[dict[str, Any]]:
        west = {"NodeID": "aa" * 28, "NodeManagerHostname": "west", "Alive": True}
        return [west, {"NodeID": "bb" * 28, "NodeManagerHostname": "east", "Alive": False}]

    def init(self, **_: Any) -> None:
        raise ConnectionError("nobody is there")

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


class Made(Cluster):
    """Without a Ray of its own."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._ray = self.ray = Ray()
        self._own = True
        self.places = Places(self.ray)
        self.roles = {}
        self.engine: list[str] = []

    def add(self, name: str) -> Future[Any]:
        ended: Future[Any] = Future()
        self.roles[name] = RoleProcess(
            name=name, actors=[name], results=[""], ended=ended, groups=[], engine=self.engine
        )
        return ended


@pytest.mark.parametrize("mode", ["disabled", None])
def test_the_users_own_way_of_authentication_is_kept_on_the_users_cluster(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", mode or "")
    if mode is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    own_ray.authenticate(own=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE = '" + (mode or "token")):
        made._join("10.0.0.1:6379")


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


@pytest.mark.parametrize("error", [exceptions.GetTimeoutError("late"), exceptions.RayError()])
def test_a_machine_that_does_not_answer_is_named_and_no_sweep_comes_late(
    error: Exception, cluster: Made, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    cluster._own, cluster._node, cluster.ray.answer = False, "bb" * 28, fail
    (cluster._run_dir / "pids").mkdir()
    run_dirs.write_pid(cluster._run_dir, "generator-0", "aa" * 28)
    cluster.sweep("generator-0")
    assert cluster.ray.killed == ["a sweep"]
    assert "generator-0 was on west, which cannot be reached" in caplog.text


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


def test_the_machines_of_an_engine_on_several_are_named(cluster: Made) -> None:
    cluster.engine = ["aa" * 28, "bb" * 28]
    cluster.add("generator-0")
    found = ends(cluster, exceptions.ActorDiedError())
    assert "generator-0, its engine on west and east (gone), ended by" in found


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
    ended.set_result(0)
    assert cluster.wait(5) == "scorer-0"


def test_a_role_on_several_machines_ends_with_its_first_part_or_one_that_fails() -> None:
    for first, second in (("done", ""), ("", "failed")):
        parts = [Future[Any](), Future[Any]()]
        ended = _first_end(parts)
        parts[1].set_result({}) if not second else parts[1].set_exception(RuntimeError(second))
        assert ended.done() is bool(second)
        parts[0].set_result({"finished": True})
        assert ended.result(0) == bool(second), first


def test_the_part_that_failed_is_told_by_its_name(cluster: Made) -> None:
    def fail() -> None:
        raise exceptions.ActorDiedError()

    answers = {"one": lambda: {"finished": True}, "two": fail}
    cluster.ray.get = lambda reference: answers[reference]()  # type: ignore[method-assign]
    ended = Future[int]()
    ended.set_result(1)
    cluster.roles["learner-0"] = RoleProcess(
        name="learner-0", actors=["a", "b"], results=["one", "two"], ended=ended, groups=[]
    )
    with pytest.raises(RoleDiedError, match=r"learner-0\.1 ended by itself"):
        cluster.result("learner-0")
    assert cluster.ray.killed == ["a", "b"]
