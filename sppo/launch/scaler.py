"""The supervisor's side of `sppo-cli scale`: newcomers and leavers, a little in each round.

Room for all newcomers is reserved before any is started, and who is to go is told after that: a
request that cannot be carried out changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError, SppoError
from sppo.launch import scaling
from sppo.launch.cluster import Cluster
from sppo.launch.places import PLACE_TIMEOUT_S
from sppo.launch.room import demand
from sppo.launch.roster import Post, Roster
from sppo.transport.broker import Registry

LEAVING_TIMEOUT_S = 60.0

Tell = Callable[..., None]


class Scaler:
    """Changes the roster as `sppo-cli scale` asks."""

    def __init__(self, run_dir: Path, roster: Roster, tell: Tell) -> None:
        self._run_dir = run_dir
        self._roster = roster
        self._tell = tell
        self._wanted: dict[str, int] = {}
        """What the newest request that is being carried out asks for."""
        self._growing: list[str] = []
        """Names of newcomers for whom room is being looked for, since `_since`."""
        self._since = 0.0
        self._target: dict[str, int] = {}
        """How many there are to be of the roles that were scaled."""
        self._answer = {"id": scaling.read(run_dir).get("id", ""), "refused": ""}
        """To the newest request; one of an earlier life of the supervisor is over."""

    def state(self) -> dict[str, Any]:
        """For status.json."""
        return self._answer | {"leaving": self._roster.leaving()}

    def round(self, cluster: Cluster, registry: Registry, start: Callable[[str], None]) -> None:
        """Go on with what is under way."""
        self._end_late(cluster)
        if self._growing:
            self._grow(cluster, start)
        else:
            self._take_request(cluster)
        self._dismiss(registry)

    def gone(self, name: str, text: str) -> None:
        """Who was to leave has ended."""
        del self._roster[name]
        self._tell("scale", text, role=name)

    def give_up(self, name: str, error: SppoError) -> None:
        """A newcomer that never came to work does not cost the run: there is one fewer."""
        role = self._roster.pop(name).role
        self._set_target(role, len(self._roster.staying(role)))
        self._answer["refused"] = f"{name} did not come to work: {error}"
        first = str(error).splitlines()[0]
        self._tell("scale", f"{name} did not come to work and is given up: {first}", role=name)

    def _take_request(self, cluster: Cluster) -> None:
        asked = scaling.read(self._run_dir)
        if not asked or asked["id"] == self._answer["id"]:
            return
        self._answer = {"id": asked["id"], "refused": ""}
        self._wanted = asked["wanted"]
        try:
            self._check(cluster)
        except ConfigError as error:
            self._refuse(str(error))
            return
        what = ", ".join(f"{r}s: {n}" for r, n in self._wanted.items())
        self._tell("scale", what, wanted=self._wanted)
        self._since = time.monotonic()
        for role, count in self._wanted.items():
            more = max(0, count - len(self._roster.staying(role)))
            self._growing += self._roster.free_names(role, more)
        if not self._growing:
            self._commit()

    def _check(self, cluster: Cluster) -> None:
        """Raises ConfigError for what cannot be."""
        if "scorer" in self._wanted and not self._roster.staying("scorer"):
            raise ConfigError(
                "scorers: none is this run's own (scorer.mode = 'inline', or scorer.url names "
                "yours), so there is nothing to scale"
            )
        config = self._roster.begun
        shares, asked = config.generator.replicas, self._wanted.get("generator", 0)
        if config.launch.share_gpu and asked > shares:
            raise ConfigError(
                f"generators: {asked}: launch.share_gpu = true gave each of {shares} its share of "
                f"the one GPU when the run began; end it (`sppo-cli down`) and start it again with "
                f"--set generator.replicas={asked}"
            )
        leaving = [self._roster[name].role for name in self._roster.leaving()]
        counts = {
            role: self._wanted.get(role, len(self._roster.staying(role))) + leaving.count(role)
            for role in ("learner", "scorer", "generator")
        }
        cluster.places.check(config, counts)

    def _grow(self, cluster: Cluster, start: Callable[[str], None]) -> None:
        config = self._roster.config
        wanted = {name: demand(_role(name), self._roster.begun) for name in self._growing}
        there = [cluster.places.reserve(name, each) for name, each in wanted.items()]  # ask for all
        if all(there):
            self._growing = []
            self._commit()
            for name in wanted:
                self._roster[name] = Post(role=_role(name), config=config, newcomer=True)
                start(name)
        elif time.monotonic() - self._since > PLACE_TIMEOUT_S:
            for name in wanted:
                cluster.places.release(name)
            self._growing = []
            first = next(iter(wanted.values()))
            self._refuse(
                f"no machine of the cluster has room for {', '.join(wanted)} "
                f"({cluster.places.describe(first)} each)"
            )

    def _commit(self) -> None:
        for role, count in self._wanted.items():
            self._set_target(role, count)

    def _set_target(self, role: str, count: int) -> None:
        self._target[role] = count
        self._roster.expect(role, count)

    def _dismiss(self, registry: Registry) -> None:
        for role, count in self._target.items():
            for name in self._roster.staying(role)[count:]:
                post = self._roster[name]
                if post.due is not None:  # it had died anyway
                    self.gone(name, f"{name} is not started again")
                    continue
                registry.request_stop(name, "the run is scaled down")
                post.leave_by = time.monotonic() + LEAVING_TIMEOUT_S

    def _end_late(self, cluster: Cluster) -> None:
        for name in self._roster.leaving():
            post = self._roster[name]
            assert post.leave_by is not None
            if time.monotonic() > post.leave_by:
                limit = f"{LEAVING_TIMEOUT_S:.0f} s"
                self._tell("scale", f"{name} did not leave within {limit} and is ended", role=name)
                post.leave_by = float("inf")
                cluster.sweep(name)

    def _refuse(self, reason: str) -> None:
        self._answer["refused"] = reason
        self._tell("scale", f"refused: {reason}", wanted=self._wanted)


def _role(name: str) -> str:
    return name.rsplit("-", 1)[0]
