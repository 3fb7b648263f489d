"""Machines that are network namespaces, each with a name and an address of its own, on one switch.
They share memory, processor, disk and the temporary folder, but for what Ray keeps there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ADDRESSES = "10.97.0"
ETC = Path("/etc/netns")
OWN = 'hostname "$0" && mkdir -p "$1" /tmp/ray && mount --bind "$1" /tmp/ray && shift && exec "$@"'


class Machine:
    """One of them."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.space = f"sppo-{os.getpid()}-{name}"

    def command(self, *words: str) -> list[str]:
        """These words as a command of this machine."""
        named = ["unshare", "--uts", "--mount", "sh", "-c", OWN, self.name, str(self.ray)]
        return ["ip", "netns", "exec", self.space, *named, *words]

    @property
    def ray(self) -> Path:
        """What this machine has at /tmp/ray, where Ray notes the addresses of a machine."""
        return Path(f"/tmp/{self.space}-ray")

    def processes(self) -> list[int]:
        """Everything that runs there."""
        found = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def ranks(self) -> list[int]:
        """Those of them that are ranks of vLLM which Ray has started."""
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in self.processes()}
        return [pid for pid, name in names.items() if "RayWorkerProc" in name]

    def kill(self) -> None:
        """End all of it at once, as a machine that loses power does."""
        for _ in range(50):
            if not (pids := self.processes()):
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        raise AssertionError(f"processes of {self.name} do not end: {self.processes()}")


class Lan:
    """The switch and its machines."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.switch"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self.machines: dict[str, Machine] = {}

    def add(self, name: str) -> Machine:
        """A machine that starts; its place among the names is its address."""
        machine = Machine(name, f"{ADDRESSES}.{self._names.index(name) + 1}")
        _ip("netns", "add", machine.space)
        self.machines[name] = machine
        (ETC / machine.space).mkdir(parents=True)
        lines = [f"{ADDRESSES}.{i} {other}" for i, other in enumerate(self._names, 1)]
        (ETC / machine.space / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self.tell(f"plug {machine.space} {machine.address}")
        return machine

    def lose(self, machine: Machine) -> None:
        """Everything there ends, and nobody answers at its address any more."""
        self.cut(machine)
        machine.kill()
        self.tell(f"unplug {machine.space}")
        self._remove(machine)

    def cut(self, machine: Machine) -> None:
        """Its cable is out: packets are lost, and nobody is told."""
        self.tell(f"cut {machine.space}")

    def mend(self, machine: Machine) -> None:
        """Its cable is in again."""
        self.tell(f"mend {machine.space}")

    def delay(self, seconds: float) -> None:
        """Each packet between two machines takes so long."""
        self.tell(f"delay {seconds}")

    def tell(self, line: str) -> None:
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.write(line + "\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline() == "ok\n", line

    def close(self) -> None:
        for machine in list(self.machines.values()):
            machine.kill()
            self._remove(machine)
        self._switch.kill()
        self._switch.wait()

    def _remove(self, machine: Machine) -> None:
        _ip("netns", "del", machine.space)
        shutil.rmtree(ETC / machine.space)
        shutil.rmtree(machine.ray, ignore_errors=True)
        del self.machines[machine.name]


@contextmanager
def lan(*names: str) -> Iterator[Lan]:
    """A switch that may have machines of these names. Skips the test where this user may make no
    namespaces.
    """
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: machines are network namespaces")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun cannot be opened: a switch between namespaces needs it")
    probe = f"sppo-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        pytest.skip("this user may make no network namespaces: run it as root")
    _ip("netns", "del", probe)
    made = Lan(names)
    try:
        yield made
    finally:
        made.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
