"""Memory that two processes of one machine have together: of a GPU by CUDA IPC, of a CPU by a file
that has no name.

What one process makes another opens by a handle of plain numbers and text, so nothing is pickled.
Whoever made it keeps it for as long as others may look. On a CPU it is Linux's `memfd`: it stands
in no folder, takes nothing of /dev/shm, and is gone with the last process that has it, however that
ends. The part for GPUs is written from torch's sources (2.13, `StorageSharing.cpp`,
`CudaIPCTypes.cpp`) and was not run on one.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppo import marks

NAME = "sppo-weights-"


class NotShared(Exception):  # noqa: N818 - an answer, not a fault
    """This memory cannot be had together; says why, in one line."""


def create(nbytes: int, device: torch.device) -> tuple[Tensor, dict[str, Any]]:
    """[nbytes] uint8 that others can open, with the handle by which they do. Raises NotShared."""
    return _create_cuda(nbytes, device) if device.type == "cuda" else _create_host(nbytes)


def attach(handle: dict[str, Any], device: torch.device) -> Tensor:
    """The same bytes in another process: [nbytes] uint8 on this device of its own.

    Raises NotShared where this process cannot have them: on another machine, on another GPU.
    """
    if handle["kind"] != device.type:
        raise NotShared(f"the learner is on a {_kind(handle['kind'])}, and this is not")
    return _attach_cuda(handle, device) if device.type == "cuda" else _attach_host(handle)


def settle(device: torch.device) -> None:
    """Returns when all that this device was asked to do is done: other processes see it then."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """This thread works on this device: a new one begins on the first."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.accelerator.device_index(device.index)


def _kind(device_type: str) -> str:
    return "GPU" if device_type == "cuda" else "CPU"


# a CPU ------------------------------------------------------------------------------------------
def _create_host(nbytes: int) -> tuple[Tensor, dict[str, Any]]:
    if not hasattr(os, "memfd_create"):
        raise NotShared("this system has no memory files (memfd)")
    name = NAME + uuid.uuid4().hex
    fd = os.memfd_create(name)  # open for as long as the tensor is there: others come by its number
    os.ftruncate(fd, nbytes)
    path = _path(os.getpid(), fd)
    flat = torch.from_file(str(path), shared=True, size=nbytes, dtype=torch.uint8)
    weakref.finalize(flat, os.close, fd)
    return flat, {"kind": "cpu", "pid": os.getpid(), "fd": fd, "name": name, "nbytes": nbytes}


def _attach_host(handle: dict[str, Any]) -> Tensor:
    path = _path(handle["pid"], handle["fd"])
    try:
        there = os.readlink(path)
    except OSError as error:
        raise NotShared(f"{path} of the learner: {error.strerror}") from None
    if handle["name"] not in there:
        raise NotShared(f"{path} is not the learner's: another machine or container")
    try:
        return torch.from_file(str(path), shared=True, size=handle["nbytes"], dtype=torch.uint8)
    except RuntimeError as error:
        raise NotShared(str(error).splitlines()[0]) from error


def _path(pid: int, fd: int) -> Path:
    return Path(f"/proc/{int(pid)}/fd/{int(fd)}")


# a GPU ------------------------------------------------------------------------------------------
def _create_cuda(nbytes: int, device: torch.device) -> tuple[Tensor, dict[str, Any]]:
    flat = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    settle(device)
    storage: Any = flat.untyped_storage()
    try:
        # Once for all receivers. torch then counts whoever let go of it in a file of its own, and
        # would keep what is counted as held; nothing is given back here before the process ends.
        _, memory, size, offset, counter, counted, _, _ = storage._share_cuda_()
    except RuntimeError as error:
        raise NotShared(str(error).splitlines()[0]) from error
    marks.goes_too(counter.decode().removeprefix("/"))
    return flat, {
        "kind": "cuda",
        "uuid": _uuid(device),
        "memory": memory.hex(),
        "nbytes": size,
        "offset": offset,
        "counter": counter.hex(),
        "counted": counted,
    }


def _attach_cuda(handle: dict[str, Any], device: torch.device) -> Tensor:
    # A process sees its GPU as the first whatever it is, so numbers tell nothing.
    if (own := _uuid(device)) != handle["uuid"]:
        raise NotShared(f"the learner is on the GPU {handle['uuid']}, the engine on {own}")
    storage: Any = torch.UntypedStorage
    try:
        opened = storage._new_shared_cuda(
            device.index, bytes.fromhex(handle["memory"]), handle["nbytes"], handle["offset"],
            bytes.fromhex(handle["counter"]), handle["counted"],
            b"", False,  # no event to wait for: whoever made it waited before it told of it
        )  # fmt: skip
    except RuntimeError as error:
        raise NotShared(str(error).splitlines()[0]) from error
    flat = torch.empty(0, dtype=torch.uint8, device=device)
    return flat.set_(opened, 0, (handle["nbytes"],), (1,))


def _uuid(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)
