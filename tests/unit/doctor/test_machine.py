"""What a machine lacks is on the line that says so; limits are lowered for real where that is
possible.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sppo import compute
from sppo.doctor import machine
from sppo.doctor.findings import Run, made
from sppo.launch import machine as launch

from .conftest import line, seen

Running = Callable[..., Run]
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def have(words: str) -> None:
        monkeypatch.setattr(compute, "cpu_flags", lambda: frozenset(words.split()))

    return have


def test_auto_takes_what_the_processor_multiplies(
    run: Running, flags: Callable[[str], None]
) -> None:
    flags("avx2 amx_bf16")
    it = line(machine.processor(run()), "number format")
    assert (it.state, "comes to bfloat16: the processor has amx_bf16" in it.words) == ("ok", True)
    flags("avx2")
    it = line(machine.processor(run()), "number format")
    assert it.state == "ok"
    assert "comes to float32: no AVX512_BF16 and no AMX here" in it.words
    assert "twice the memory" in it.words


def test_bf16_that_the_processor_does_not_multiply_is_a_warning(
    run: Running, flags: Callable[[str], None]
) -> None:
    flags("avx2")
    it = line(machine.processor(run("compute=bfloat16")), "number format")
    assert (it.state, it.mend) == ("warn", "set compute = 'auto'")


def test_a_containers_quota_below_its_cores_is_a_warning(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert line(machine.processor(run()), "cores").state == "ok"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    it = line(machine.processor(run()), "cores")
    assert it.state == "warn"
    assert "64 are seen, and this container may use 4" in it.words
    assert "learner.threads = 4" in it.mend
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert line(machine.processor(run()), "cores").state == "ok"


@pytest.mark.parametrize(
    ("free", "total", "state"), [(64, 64, "ok"), (1, 64, "warn"), (1, 2, "fail")]
)
def test_memory_that_is_taken_or_not_there(
    free: int, total: int, state: str, run: Running, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = namedtuple("there", "available total")(free << 30, total << 30)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    (it,) = machine.memory(run())
    assert it.state == state
    assert "take 4.8 GiB beside activations" in it.words


def test_a_containers_memory_counts(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{2 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    (it,) = machine.memory(run())
    assert (it.state, it.words.startswith("1.0 of 2.0 GiB")) == ("fail", True)


def test_a_models_roles_elsewhere_take_no_memory_here(run: Running) -> None:
    it = line(machine.memory(run("launch.ray_address=auto")), "memory")
    assert it.state == "ok"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with these options; skips where this user may not."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip("this user may not mount a tmpfs")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_shared_memory_that_is_too_small_fails(
    run: Running, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "SHARED_MEMORY", mounted("size=64m"))
    (it,) = made("shared memory", machine.shared_memory, run())
    assert it.state == "fail"
    assert "has 64 MiB free and vLLM needs 240" in it.words


def test_no_shared_memory_fails(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "SHARED_MEMORY", tmp_path / "none")
    (it,) = machine.shared_memory(run())
    assert it.state == "fail"


def test_little_shared_memory_is_a_warning_for_several_gpus(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(machine.shared_memory(run())) == {"shared memory": "ok"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(512 << 20, 0, 512 << 20))
    (it,) = machine.shared_memory(run("generator.tensor_parallel=2"))
    assert (it.state, "NCCL" in it.words) == ("warn", True)


def test_a_temporary_folder_from_which_nothing_may_run_fails(
    run: Running, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setenv("TMPDIR", short)
        assert seen(machine.temporary_folder(run())) == {"temporary folder": "ok"}
        monkeypatch.setattr(os, "statvfs", _of(mounted("noexec")))
        (it,) = machine.temporary_folder(run())
    assert (it.state, "noexec" in it.words) == ("fail", True)


def _of(folder: Path) -> Callable[[str], os.statvfs_result]:
    """What the kernel says of this folder, whichever is asked for."""
    found = os.statvfs(folder)
    return lambda _: found


def test_a_temporary_folder_too_long_for_sockets_fails(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    (it,) = made("temporary folder", machine.temporary_folder, run())
    assert (it.state, "use a shorter one" in it.words) == ("fail", True)


@pytest.mark.parametrize(("soft", "state"), [(512, "fail"), (2048, "warn"), (8192, "ok")])
def test_open_files_are_limited_for_real(soft: int, state: str, run: Running) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        it = line(machine.limits(run()), "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert it.state == state
    assert f"at most {soft:,}" in it.words
    assert ("ulimit -n 4096" in it.mend) == (state != "ok")


def test_processes_that_are_nearly_used_up_are_a_warning(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: psutil.Process().uids().real + 1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    it = line(machine.limits(run()), "processes")
    assert (it.state, it.mend) == ("warn", f"ulimit -u {machine.PROCESSES_GOOD}")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, -1))
    assert line(machine.limits(run()), "processes").state == "ok"


def test_locked_memory_counts_where_there_is_infiniband(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line(machine.limits(run()), "locked memory").state == "ok"
    (tmp_path / "mlx5_0").mkdir()
    monkeypatch.setattr(machine, "FABRIC", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    it = line(machine.limits(run()), "locked memory")
    assert (it.state, "mlx5_0" in it.words) == ("warn", True)
