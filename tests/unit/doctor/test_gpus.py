"""Lines about GPUs, on pretended ones: none of this has run on a real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sppo.doctor import gpus
from sppo.doctor.findings import Run

from .conftest import line, seen

Running = Callable[..., Run]
TOPOLOGY = """\tGPU0\tGPU1\tGPU2\tCPU Affinity
GPU0\t X \tNV18\tSYS\t0-15
GPU1\tNV18\t X \tSYS\t0-15
GPU2\tSYS\tSYS\t X \t16-31
"""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """So many GPUs of one kind, so much of each taken, and pairs that do not read each other."""
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Tue\n")

    def pretend(
        count: int, *, at: tuple[int, int] = (9, 0), taken: float = 0.0,
        apart: frozenset[tuple[int, int]] = frozenset(),
    ) -> None:  # fmt: skip
        total = 80 << 30
        there = SimpleNamespace(name="Pretended", total_memory=total, major=at[0], minor=at[1])
        fakes: dict[str, Any] = {
            "is_available": lambda: count > 0,
            "device_count": lambda: count,
            "get_device_properties": lambda _: there,
            "get_arch_list": lambda: ["sm_80", "sm_90"],
            "mem_get_info": lambda _: (int(total * (1 - taken)), total),
            "can_device_access_peer": lambda i, j: (i, j) not in apart,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 29, 3))
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(gpus, "DRIVER", driver)
        monkeypatch.setenv("PATH", str(tmp_path))

    return pretend


def test_two_that_suit_are_told(run: Running, pretended: Callable[..., None]) -> None:
    pretended(2)
    found = gpus.cuda(run())
    assert seen(found) == dict.fromkeys(("CUDA", "GPU 0", "GPU 1", "GPUs"), "ok")
    assert found[0].words == "driver 580.82.07, torch's toolkit 13.0"
    assert "80.0 GiB, compute capability 9.0" in found[1].words


def test_a_torch_without_cuda_beside_a_driver_is_a_warning(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    assert seen(gpus.cuda(run())) == {"CUDA": "ok"}
    (it,) = gpus.cuda(run("learner.device=cuda"))
    assert it.state == "fail"
    (tmp_path / "version").write_text("NVRM version: NVIDIA Module 580.82.07\n")
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    (it,) = gpus.cuda(run())
    assert (it.state, "580.82.07" in it.words) == ("warn", True)


def test_a_driver_without_a_gpu_that_torch_sees_fails(
    run: Running, pretended: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretended(0)
    (it,) = gpus.cuda(run())
    assert (it.state, "docker run --gpus all" in it.mend) == ("fail", True)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    assert seen(gpus.cuda(run())) == {"CUDA": "ok"}


@pytest.mark.parametrize(
    ("at", "state"), [((7, 5), "fail"), ((8, 9), "ok"), ((9, 0), "ok"), ((12, 0), "fail")]
)
def test_a_gpu_that_kernels_or_torch_are_not_built_for_fails(
    at: tuple[int, int], state: str, run: Running, pretended: Callable[..., None]
) -> None:
    pretended(1, at=at)
    assert line(gpus.cuda(run("launch.share_gpu=true")), "GPU 0").state == state


def test_ptx_of_an_older_one_will_do() -> None:
    assert gpus._built_for((12, 0), ["sm_80", "compute_90"])
    assert not gpus._built_for((8, 0), ["sm_90a"])


def test_fewer_gpus_than_the_run_asks_for_fail(
    run: Running, pretended: Callable[..., None]
) -> None:
    pretended(1)
    it = line(gpus.cuda(run()), "GPUs")
    assert (it.state, it.words) == ("fail", "the run asks for 2, and 1 are here")


def test_a_cluster_has_its_own(run: Running) -> None:
    assert seen(gpus.cuda(run("launch.ray_address=auto"))) == {"CUDA": "skip"}


def test_without_gpus_the_rest_is_skipped(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    found = [*gpus.nccl(run()), *gpus.peers(run()), *gpus.share(run())]
    assert seen(found) == dict.fromkeys(("NCCL", "peer access", "GPU share"), "skip")


def test_an_nccl_that_does_not_load_fails(
    run: Running, pretended: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretended(2)
    monkeypatch.setenv("VLLM_NCCL_SO_PATH", str(tmp_path / "libnccl.so"))
    (it,) = gpus.nccl(run())
    assert (it.state, "does not load" in it.words) == ("fail", True)
    (it,) = gpus.nccl(run("weights.transport=gloo"))
    assert it.state == "warn"


def test_the_version_of_a_library_is_asked_of_it() -> None:
    def ask(at: Any) -> int:
        at._obj.value = 22705
        return 0

    assert gpus._version(ask) == "2.27.5"


def test_pairs_without_peer_access_are_a_warning(
    run: Running, pretended: Callable[..., None]
) -> None:
    pretended(2)
    assert gpus.peers(run())[0].words == "2 of 2 pairs"
    pretended(2, apart=frozenset({(1, 0)}))
    (it,) = gpus.peers(run())
    assert it.state == "warn"
    assert it.words == "1 of 2 pairs; GPU 1 does not read GPU 0"
    pretended(1)
    assert seen(gpus.peers(run())) == {"peer access": "skip"}


def test_the_topology_is_what_nvidia_smi_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool.write_text(f"#!/bin/sh\ncat <<'E'\n{TOPOLOGY}E\n")
    tool.chmod(0o755)
    assert gpus.topology() == "2 x SYS, 1 x NV18"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpus.topology() == ""


def test_memory_that_others_have_is_a_warning(run: Running, pretended: Callable[..., None]) -> None:
    pretended(1)
    assert seen(gpus.share(run())) == {"GPU share": "ok"}
    pretended(1, taken=0.5)
    (it,) = gpus.share(run())
    assert (it.state, "GPU 0 40.0 of 80.0 GiB" in it.words) == ("warn", True)
