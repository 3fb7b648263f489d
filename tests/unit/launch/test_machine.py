"""A machine that cannot run the run is told so by what it lacks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sppo import compute, config
from sppo.errors import ConfigError
from sppo.launch import machine


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder to make others in; TMPDIR is looked up anew."""
    with tempfile.TemporaryDirectory(dir="/tmp") as found:
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("TMPDIR", found)
        yield Path(found)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(folder))


def small() -> config.RunConfig:
    return config.load("quickstart", ["generator.engine=transformers"])


@pytest.mark.parametrize(
    ("name", "odd"),
    [("my tmp", "' '"), ("100%25", "'%'"), ("a#b", "'#'"), ("tmpß", "'ß'"), ("it's", '"\'"')],
)
def test_a_character_that_ray_cannot_work_with_is_named(
    name: str, odd: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, folder / name)
    with pytest.raises(ConfigError) as refused:
        machine.check(small())
    assert f"{name}" in str(refused.value) or repr(name)[1:-1] in str(refused.value)
    assert f"has {odd} in it" in str(refused.value)


def test_one_too_long_for_sockets_is_named_with_its_length(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = machine.SOCKET_BYTES - len(machine.RAYS_SOCKET)
    fits = folder / ("a" * (room - len(str(folder)) - 1))
    use(monkeypatch, fits)
    machine.check(small())
    monkeypatch.setattr(tempfile, "tempdir", None)
    use(monkeypatch, Path(f"{fits}a"))
    with pytest.raises(
        ConfigError, match=rf"TMPDIR = .* is {room + 1} bytes long.*may have {room}"
    ):
        machine.check(small())
    machine.check(small(), "scorer")  # without Ray there is more room


def test_a_relative_one_is_made_whole_for_whoever_starts_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "here").mkdir()
    monkeypatch.setenv("TMPDIR", "./here")
    machine.check(small())
    assert os.environ["TMPDIR"] == str(folder / "here")


def test_too_little_shared_memory_is_named_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm = config.load("quickstart", ["learner.device=cpu"])
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    with pytest.raises(
        ConfigError, match=r"none has 0 MiB free and vLLM needs 240.*--shm-size.*transformers"
    ):
        machine.check(vllm)
    machine.check(small())
    machine.check(vllm, "scorer")
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    machine.check(vllm)


def test_whether_there_is_a_gpu_is_asked_only_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room in shared memory, and a run that takes a GPU if there is one
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(compute, "gpus_here", lambda: pytest.fail("torch was loaded"))
    # Then rows are looked at without torch
    machine.check(config.load("quickstart", ["learner.device=auto"]))


def test_a_run_directory_without_room_for_the_brokers_log_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.check_disk(small(), tmp_path)
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(ConfigError, match=rf"--run-dir {tmp_path}: .* MiB free.*choose another"):
        machine.check_disk(small(), tmp_path)
    machine.check_disk(config.load("quickstart", ["broker.url=redis://127.0.0.1:1"]), tmp_path)


@pytest.mark.parametrize("name", ["my tmp", "a" * 90])
def test_a_temporary_folder_is_judged_for_roles_that_listen_in_it(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a folder that no socket can be made in, or that a command line would break at
    use(monkeypatch, folder / name)
    vllm = config.load("quickstart", ["learner.device=cpu"])
    cluster = config.load(
        "quickstart", ["launch.ray_address=auto", "broker.url=redis://127.0.0.1:1"]
    )
    # Then who listens there is refused, and nobody else is
    for run, role in ((small(), "up"), (small(), "broker"), (vllm, "generator")):
        with pytest.raises(ConfigError, match="TMPDIR = "):
            machine.check(run, role)
    for run, role in (
        (small(), "generator"), (vllm, "scorer"), (vllm, "learner"), (cluster, "up")
    ):  # fmt: skip
        machine.check(run, role)
