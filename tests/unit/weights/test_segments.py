"""Memory that two processes have together."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest
import torch

from sppo import marks
from sppo.transport import codec
from sppo.weights import segments
from sppo.weights.segments import NotShared

CPU = torch.device("cpu")


def doubled(message: bytes) -> None:
    """In another process: read what is there, and answer in its place."""
    torch.set_num_threads(1)
    flat = segments.attach(codec.unpack(message), CPU)
    flat.mul_(2)


def test_another_process_has_the_same_bytes_by_a_handle_of_numbers_and_text() -> None:
    flat, handle = segments.create(64, CPU)
    flat.copy_(torch.arange(64))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=doubled, args=(codec.pack(handle),))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert flat.tolist() == [2 * i for i in range(64)]


def test_memory_has_no_name_and_goes_with_the_last_who_has_it() -> None:
    flat, handle = segments.create(4096, CPU)
    path = f"/proc/self/fd/{handle['fd']}"
    assert "deleted" in os.readlink(path)
    other = segments.attach(handle, CPU)
    flat[5] = 7
    del flat
    assert not os.path.lexists(path) or handle["name"] not in os.readlink(path)
    assert int(other[5]) == 7  # a process that has it keeps it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pid": 2**22 + 1}, "No such file"),
        ({"name": "sppo-weights-another"}, "another machine or container"),
        ({"kind": "cuda"}, "the learner is on a GPU, and this is not"),
    ],
)
def test_what_is_not_the_learners_memory_is_refused(change: dict[str, Any], said: str) -> None:
    _, handle = flat_and_handle = segments.create(64, CPU)
    with pytest.raises(NotShared, match=said):
        segments.attach(handle | change, CPU)
    del flat_and_handle


def test_a_system_without_memory_files_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(NotShared, match="memfd"):
        segments.create(64, CPU)


class Card:
    """What torch asks of a GPU for memory that is shared by CUDA IPC, kept in host memory."""

    uuid = "GPU-1"

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shared: torch.Tensor | None = None
        self.opened: tuple[Any, ...] = ()
        patch.setattr(segments, "settle", lambda _: None)
        patch.setattr(torch, "zeros", self._zeros)
        patch.setattr(torch.cuda, "get_device_properties", lambda _: self)
        patch.setattr(torch.UntypedStorage, "_share_cuda_", self._share, raising=False)
        patch.setattr(torch.UntypedStorage, "_new_shared_cuda", self._open, raising=False)

    def _zeros(self, nbytes: int, **_: Any) -> torch.Tensor:
        self.shared = torch.full((nbytes,), 3, dtype=torch.uint8)
        return self.shared

    def _share(self) -> tuple[Any, ...]:
        return 0, b"\x01\xff", 64, 4096, b"/torch_1_2_3", 5, b"event", True

    def _open(self, *handle: Any) -> Any:
        if handle[1] != b"\x01\xff":
            raise RuntimeError("CUDA error: invalid resource handle\nmore of it")
        assert self.shared is not None
        self.opened = handle
        return self.shared.untyped_storage()


def test_a_gpu_is_told_by_its_uuid_and_opened_under_the_number_it_has_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, went = Card(monkeypatch), list[str]()
    monkeypatch.setattr(marks, "goes_too", went.append)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.tensor([], dtype=torch.uint8))
    _, handle = segments.create(64, torch.device("cuda", 3))
    assert went == ["torch_1_2_3"]
    handle = codec.unpack(codec.pack(handle))
    # The same GPU is the first of another process
    opened = segments.attach(handle, torch.device("cuda", 0))
    assert opened.tolist() == [3] * 64
    assert card.opened == (0, b"\x01\xff", 64, 4096, b"/torch_1_2_3", 5, b"", False)
    # a handle that CUDA does not open, and another GPU, are reasons of one line
    with pytest.raises(NotShared, match=r"^CUDA error: invalid resource handle$"):
        segments.attach(handle | {"memory": "00"}, torch.device("cuda", 0))
    card.uuid = "GPU-2"
    with pytest.raises(NotShared, match="the learner is on the GPU GPU-1, the engine on GPU-2"):
        segments.attach(handle, torch.device("cuda", 0))
