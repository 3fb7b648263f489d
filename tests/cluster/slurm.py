"""Debian's Slurm on machines that are network namespaces: munged, a controller, a daemon on each,
and GPUs that are null devices.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import packages
from tests.cluster.machines import Machine

GPUS = 8
REQUEUE_S = 5
"""A job that was put back waits so long: the life of a step's credential."""
PLUGINS = "usr/lib/x86_64-linux-gnu/slurm-wlm"
CONF = """
ClusterName=sppo
SlurmctldHost={first}({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeAddr={address} CPUs=64 RealMemory=64000 Gres=gpu:{gpus}\n"


class Slurm:
    """Commands of a cluster that is up."""

    def __init__(self, folder: Path, first: Machine) -> None:
        self._folder = folder
        self._first = first
        self._daemons: list[subprocess.Popen[bytes]] = []
        tools = [packages.program(name) for name in ("sbatch", "scancel", "squeue", "scontrol")]
        path = [*dict.fromkeys(str(Path(tool).parent) for tool in tools), os.environ["PATH"]]
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.pathsep.join(path),
            "LD_LIBRARY_PATH": os.pathsep.join(
                [packages.environment()["LD_LIBRARY_PATH"], str(_plugins())]
            ),
        }  # fmt: skip

    def start(self, machine: Machine, *words: str) -> None:
        """A daemon in the foreground, on this machine."""
        log = (self._folder / f"{Path(words[0]).name}-{machine.name}.out").open("w")
        with log:
            self._daemons.append(
                subprocess.Popen(
                    machine.command(*words), env=self.environment, stdout=log, stderr=log
                )
            )

    def call(self, *words: str) -> str:
        """A command of the user's on the first machine."""
        done = subprocess.run(
            self._first.command(*words), env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.logs())
        return done.stdout.strip()

    def submit(self, script: Path, *options: str, **variables: object) -> str:
        """Number of the job."""
        exported = ",".join(["ALL", *(f"{key}={value}" for key, value in variables.items())])
        return self.call("sbatch", "--parsable", f"--export={exported}", *options, str(script))

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says of it, of the first one where it is an array."""
        found = self.call("scontrol", "--oneliner", "show", "job", number).splitlines()[0]
        return dict(word.split("=", 1) for word in found.split() if "=" in word)

    def steps(self, number: str) -> dict[str, str]:
        """Names of the steps that run, with their numbers."""
        found = self.call("squeue", "--noheader", "--steps", f"--jobs={number}", "--format=%j %i")
        return dict(line.split() for line in found.splitlines())

    def logs(self) -> str:
        files = [*self._folder.glob("*.log"), *self._folder.glob("*.out")]
        return "\n".join(f"== {p.name}\n{p.read_text()[-1500:]}" for p in sorted(files))

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()


def _plugins() -> Path:
    unpacked = packages.ROOT / PLUGINS
    return unpacked if unpacked.is_dir() else Path("/") / PLUGINS


@contextmanager
def running(folder: Path, *machines: Machine) -> Iterator[Slurm]:
    """A cluster of these machines, up. Skips the test where Slurm cannot be had."""
    packages.fetch("slurm-wlm", "munge")
    for name in ("munge", "state"):
        (folder / name).mkdir(mode=0o700)
    given: dict[str, Any] = {
        "first": machines[0].name, "address": machines[0].address, "folder": folder,
        "plugins": _plugins(), "requeue": REQUEUE_S,
    }  # fmt: skip
    nodes = "".join(NODE.format(name=m.name, address=m.address, gpus=GPUS) for m in machines)
    (folder / "slurm.conf").write_text(CONF.format(**given) + nodes)
    for i in range(GPUS):
        os.mknod(folder / f"gpu{i}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # another /dev/null
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    # Nobody's cgroups are used, and none need be mounted.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o600)
    slurm = Slurm(folder, machines[0])
    try:
        slurm.start(
            machines[0], packages.program("munged"), "--foreground", "--force",
            f"--socket={folder}/munge/socket", f"--key-file={folder}/munge.key",
            f"--log-file={folder}/munged.log", f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        slurm.start(machines[0], packages.program("slurmctld"), "-D")
        stepd = packages.program("slurmstepd")
        for machine in machines:
            daemon = packages.program("slurmd")
            slurm.start(machine, daemon, "-D", "-N", machine.name, "-d", stepd)
        _wait_for_nodes(slurm, len(machines))
        yield slurm
    finally:
        slurm.close()


def _wait_for_nodes(slurm: Slurm, count: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        done = subprocess.run(
            slurm._first.command("sinfo", "--noheader", "--Node", "--format=%t"),
            env=slurm.environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.stdout.split() == ["idle"] * count:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"Slurm does not come up: {done.stdout}{done.stderr}\n{slurm.logs()}")
        time.sleep(0.2)
