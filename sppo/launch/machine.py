"""What this machine must offer before anything starts: a temporary folder that sockets fit into,
and shared memory.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from sppo import compute
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.transport.server import MIN_FREE_BYTES

SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux."""
RAYS_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
OWN_SOCKET = "/sppo-4294967295-0123456789abcdef/broker.sock"
"""The longest paths below the temporary folder: of Ray, and of our broker; vLLM's are shorter."""
PLAIN = re.compile(r"[A-Za-z0-9/._+=@,~-]")
"""Ray, vLLM and compilers put the path into command lines and addresses; Ray takes ASCII alone."""

SHARED_MEMORY = Path("/dev/shm")
QUEUE_MIB = 240
"""vLLM's executor of several processes makes two queues of at most so much, of which it touches
little; it asks for the free space of each when it makes it.
"""


def check(config: RunConfig, role: str = "up") -> None:
    """Raises ConfigError for a machine on which this role of the run, or all of them, could not
    work.
    """
    check_temporary(config, role)
    if role == "generator" or _own_ray(config, role):
        check_shared_memory(config)


def check_temporary(config: RunConfig, role: str) -> None:
    """Raises ConfigError if there is no temporary folder, or one that this role's sockets do not
    fit into.
    """
    folder = _temporary_folder()
    if longest := _longest_socket(config, role):
        _check_room_for(longest, folder)


def _own_ray(config: RunConfig, role: str) -> bool:
    """Whether this process starts Ray, and all roles on this machine with it."""
    return role == "up" and not config.launch.ray_address


def _longest_socket(config: RunConfig, role: str) -> str:
    """The longest path below the temporary folder at which this role, or what it starts here,
    listens; empty if none does.
    """
    if _own_ray(config, role):
        return RAYS_SOCKET
    vllm = role == "generator" and config.generator.engine == "vllm"
    return OWN_SOCKET if vllm or role == "broker" else ""


def check_disk(config: RunConfig, run_dir: Path) -> None:
    """Raises ConfigError if the embedded broker would not start for want of room in the run
    directory.
    """
    free = shutil.disk_usage(run_dir).free
    if not config.broker.url and free < MIN_FREE_BYTES:
        raise ConfigError(
            f"--run-dir {run_dir}: {free >> 20} MiB free on its disk, and the broker's log needs "
            f"{MIN_FREE_BYTES >> 20}: free some disk space, or choose another"
        )


def _temporary_folder() -> str:
    """Where temporary files go: every role makes some. Raises ConfigError if there is no place."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        raise ConfigError(
            f"no temporary folder can be written: {error.strerror or error}; set TMPDIR to one"
        ) from error
    os.environ["TMPDIR"] = folder  # whole and usable, for everything that this process starts
    return folder


def _check_room_for(longest: str, folder: str) -> None:
    room = SOCKET_BYTES - len(longest)
    size = len(os.fsencode(folder))
    if odd := sorted({c for c in folder if not PLAIN.fullmatch(c)}):
        raise ConfigError(
            f"TMPDIR = {folder!r} has {odd[0]!r} in it, and Ray, vLLM and compilers put that path "
            f"into command lines "
            "and addresses: use a folder of ASCII letters, digits and _./+=@,~- alone, such as "
            "TMPDIR=/tmp"
        )
    if size > room:
        raise ConfigError(
            f"TMPDIR = {folder!r} is {size} bytes long: sockets are made in it, whose paths end at "
            f"{SOCKET_BYTES} "
            f"bytes, so it may have {room}; use a shorter one, such as TMPDIR=/tmp"
        )


def check_shared_memory(config: RunConfig) -> None:
    """vLLM on a CPU, or split over several GPUs, passes messages through shared memory. Raises
    ConfigError if there is too little.
    """
    generator = config.generator
    if generator.engine != "vllm":
        return
    there = shutil.disk_usage(SHARED_MEMORY).free >> 20 if SHARED_MEMORY.is_dir() else 0
    if there >= QUEUE_MIB:
        return
    # Whether there is a GPU is asked last: it takes torch, and rows are looked at before that.
    if generator.devices > 1 or not compute.engine_on_gpu(config):
        raise ConfigError(
            f"{SHARED_MEMORY} has {there} MiB free and vLLM needs {QUEUE_MIB}: enlarge it (docker "
            f"run --shm-size=1g, "
            f"mount -o remount,size=1g {SHARED_MEMORY}), or set generator.engine = 'transformers'"
        )
