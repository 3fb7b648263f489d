"""The supervisor's side of `sppo-cli scale`: newcomers and leavers, a little in each round.

Room for all newcomers is reserved before any is started, and who is to go is told after that: a
request that cannot be carried out changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.launch import scaling
from sppo.launch.cluster import PLACE_TIMEOUT_S, Cluster, check_room, demand
from sppo.transport.broker import LEARNER, Broker

LEAVING_TIMEOUT_S = 60.0

Plan = dict[str, tuple[str, RunConfig]]
Tell = Callable[..., None]


class Scaler:
    """Changes the supervisor's plan: role and configuration of every process, by name."""

    def __init__(self, run_dir: Path, plan: Plan, tell: Tell) -> None:
        self._run_dir = run_dir
        self._plan = plan
        self._tell = tell
        self._wanted: dict[str, int] = {}
        """What the newest request that is being carried out asks for."""
        self._growing: list[str] = []
        self._since = 0.0
        self._target: dict[str, int] = {}
        self.newcomers: set[str] = set()
        """Started for a request, and not seen at work yet."""
        self.leaving: dict[str, float] = {}
        """Who was asked to leave, with the time at which they are ended."""
        self.answer = {"id": scaling.read(run_dir).get("id", ""), "refused": ""}
        """To the newest request; one of an earlier life of the supervisor is over."""

    def state(self) -> dict[str, Any]:
        """For status.json."""
        return self.answer | {"leaving": sorted(self.leaving)}

    def round(
        self, cluster: Cluster, broker: Broker, start: Callable[[str], None], due: dict[str, float]
    ) -> None:
        """Go on with what is under way. `due` are the roles that died and wait to be started
        again.
        """
        self._end_late(cluster)
        if self._growing:
            self._grow(cluster, start)
        else:
            self._take_request(cluster)
        self._dismiss(broker, due)

    def saw(self, name: str) -> None:
        """This role is at work."""
        self.newcomers.discard(name)

    def gone(self, name: str, text: str) -> None:
        """Who was to leave has ended."""
        del self.leaving[name], self._plan[name]
        self._tell("scale", text, role=name)

    def give_up(self, name: str, error: SppoError) -> None:
        """A newcomer that never came to work does not cost the run: there is one fewer."""
        role = self._plan.pop(name)[0]
        self.newcomers.discard(name)
        self._set_target(role, len(self._names(role)))
        self.answer["refused"] = f"{name} did not come to work: {error}"
        self._tell(
            "scale",
            f"{name} did not come to work and is given up: {str(error).splitlines()[0]}",
            role=name,
        )

    def _take_request(self, cluster: Cluster) -> None:
        asked = scaling.read(self._run_dir)
        if not asked or asked["id"] == self.answer["id"]:
            return
        self.answer = {"id": asked["id"], "refused": ""}
        self._wanted = asked["wanted"]
        try:
            self._check(cluster)
        except ConfigError as error:
            self._refuse(str(error))
            return
        self._tell(
            "scale", ", ".join(f"{r}s: {n}" for r, n in self._wanted.items()), wanted=self._wanted
        )
        self._growing, self._since = self._newcomers(), time.monotonic()
        if not self._growing:
            self._commit()

    def _check(self, cluster: Cluster) -> None:
        """Raises ConfigError for what cannot be."""
        if "scorer" in self._wanted and not self._names("scorer"):
            raise ConfigError(
                "scorers: none is this run's own (scorer.mode = 'inline', or scorer.url names "
                "yours), so there is "
                "nothing to scale"
            )
        staying = {role: len(self._names(role)) for role in ("learner", "scorer", "generator")}
        leaving = {
            role: sum(self._plan[name][0] == role for name in self.leaving) for role in staying
        }
        counts = {role: self._wanted.get(role, n) + leaving[role] for role, n in staying.items()}
        check_room(cluster.resources(), self._config, counts)

    def _newcomers(self) -> list[str]:
        names = []
        for role, count in self._wanted.items():
            free = (
                f"{role}-{i}"
                for i in range(len(self._plan) + count)
                if f"{role}-{i}" not in self._plan
            )
            names += [next(free) for _ in range(count - len(self._names(role)))]
        return names

    def _grow(self, cluster: Cluster, start: Callable[[str], None]) -> None:
        config = self._config
        there = [
            cluster.reserve(name, demand(name.rsplit("-", 1)[0], config)) for name in self._growing
        ]  # ask for all
        if all(there):
            names, self._growing = self._growing, []
            self._commit()
            for name in names:
                self._plan[name] = (name.rsplit("-", 1)[0], config)
                self.newcomers.add(name)
                start(name)
        elif time.monotonic() - self._since > PLACE_TIMEOUT_S:
            for name in self._growing:
                cluster.release(name)
            names, self._growing = self._growing, []
            self._refuse(
                f"no machine of the cluster has room for {', '.join(names)} "
                f"({cluster.describe(demand(names[0].rsplit('-', 1)[0], config))} each)"
            )

    def _commit(self) -> None:
        for role, count in self._wanted.items():
            self._set_target(role, count)

    def _set_target(self, role: str, count: int) -> None:
        """A learner that starts again waits for as many."""
        self._target[role] = count
        section = getattr(self._config, role).model_copy(update={"replicas": count})
        self._plan[LEARNER] = ("learner", self._config.model_copy(update={role: section}))

    def _dismiss(self, broker: Broker, due: dict[str, float]) -> None:
        for role, count in self._target.items():
            for name in self._names(role)[count:]:
                if name not in due:
                    broker.request_stop(name, "the run is scaled down")
                self.leaving[name] = time.monotonic() + LEAVING_TIMEOUT_S
                if due.pop(name, None) is not None:  # it had died anyway
                    self.gone(name, f"{name} is not started again")

    def _end_late(self, cluster: Cluster) -> None:
        for name in [name for name, by in self.leaving.items() if time.monotonic() > by]:
            self._tell(
                "scale",
                f"{name} did not leave within {LEAVING_TIMEOUT_S:.0f} s and is ended",
                role=name,
            )
            self.leaving[name] = float("inf")
            cluster.sweep(name)

    def _refuse(self, reason: str) -> None:
        self.answer["refused"] = reason
        self._tell("scale", f"refused: {reason}", wanted=self._wanted)

    def _names(self, role: str) -> list[str]:
        """Processes of a role that are to stay, by number."""
        names = [
            name for name, (of, _) in self._plan.items() if of == role and name not in self.leaving
        ]
        return sorted(names, key=lambda name: int(name.rsplit("-", 1)[1]))

    @property
    def _config(self) -> RunConfig:
        return self._plan[LEARNER][1]
