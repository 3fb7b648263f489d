"""Room on the machines of a Ray: who goes where is reckoned here (`sppo.launch.room`), reserved by
placement groups, and given to a process when it starts.

All of a run is reserved at once, before any process starts: whoever adds machines to the cluster
sees what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.launch.room import Demand, Machine, Seat, demand, enough, seats

PLACE_TIMEOUT_S = 30.0
POLL_S = 1.0
NODE = "ray.io/node-id"
"""By which Ray labels each machine."""

Tell = Callable[[str], None]


def may_grow(config: RunConfig) -> bool:
    """Whether machines are waited for that are not there yet."""
    return bool(config.launch.ray_address) and config.launch.room_wait_s > 0


class Places:
    """Placement groups, one for each machine that a process is spread over."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._groups: dict[str, list[Any]] = {}
        """Of processes to come."""
        self._demands: dict[str, Demand] = {}
        """Of processes that were seated: a new life asks for the same."""
        self._nodes: dict[str, list[str]] = {}
        """Where these were seated: a new life goes there, while these machines are up. Ray by
        itself would put a small process on the machine that a large one comes back to.
        """

    def machines(self, *, free: bool = False) -> list[Machine]:
        """Those of this Ray that are up, with all that they have, or with what is free of it; by
        name, so that a run is placed alike each time.
        """
        has = self._ray._private.state.available_resources_per_node() if free else {}
        up = [node for node in self._ray.nodes() if node["Alive"]]
        names = [node["NodeManagerHostname"] for node in up]
        found = []
        for node, name in zip(up, names, strict=True):
            there = has.get(node["NodeID"], {}) if free else node["Resources"]
            also = f" ({node['NodeID'][:6]})" if names.count(name) > 1 else ""
            gpus, cpus = there.get("GPU", 0), there.get("CPU", 0)
            found.append(Machine(name=name + also, node=node["NodeID"], gpus=gpus, cpus=cpus))
        return sorted(found, key=lambda machine: (machine.name, machine.node))

    def seat(self, config: RunConfig, counts: Mapping[str, int]) -> None:
        """Reserve room for all of a run. Raises ConfigError if they can never be there together,
        unless machines may come (`launch.room_wait_s`).
        """
        try:
            found, hinted = seats(self.machines(free=True), config, counts), True
        except ConfigError:  # others have a part of it: they may go
            found, hinted = self._seats_to_be(config, counts), False
        for name, seat in found.items():
            self._demands[name] = seat.demand
            self._nodes[name] = [m.node for m in seat.machines] if hinted else []
            self._ask(name, seat.demand, self._nodes[name])

    def _seats_to_be(self, config: RunConfig, counts: Mapping[str, int]) -> dict[str, Seat]:
        there = self.machines()
        try:
            return seats(there, config, counts)
        except ConfigError:
            if not may_grow(config):
                raise
        return seats(
            enough(config, counts, max((m.gpus for m in there), default=0)), config, counts
        )

    def wait(self, config: RunConfig, given_up: Callable[[], object], tell: Tell) -> None:
        """Until all that was reserved is there, where machines may come. Raises ConfigError after
        `launch.room_wait_s`, SppoError when it is given up.
        """
        limit_s = config.launch.room_wait_s
        deadline = time.monotonic() + limit_s
        told = not may_grow(config)
        while may_grow(config) and (lacking := self._lacking()):
            if not told:
                tell(f"waiting up to {limit_s:.0f} s for machines: no room for {lacking}")
            told = True
            if given_up():
                raise SppoError(f"stopped while it waited for machines: no room for {lacking}")
            if time.monotonic() > deadline:
                free = self.describe(next(self._demands[n] for n in lacking.split(", ")))
                raise ConfigError(
                    f"launch.room_wait_s = {limit_s:g}: the cluster has no room for {lacking} "
                    f"({free})"
                )
            time.sleep(POLL_S)

    def _lacking(self) -> str:
        """Who has no room yet."""
        return ", ".join(
            name
            for name, groups in self._groups.items()
            if not all(group.wait(0.01) for group in groups)
        )

    def check(self, config: RunConfig, counts: Mapping[str, int]) -> None:
        """Raises ConfigError if so many can never be there together."""
        seats(self.machines(), config, counts)

    def wanted(self, role: str, name: str, config: RunConfig) -> Demand:
        """What a process asks for."""
        return self._demands.get(name) or demand(role, config)

    def reserve(self, name: str, wanted: Demand) -> bool:
        """Ask for room for a process to come; whether it is there."""
        if name not in self._groups:
            nodes = self._nodes.get(name, [])
            there = {machine.node for machine in self.machines()} if nodes else set()
            self._ask(name, wanted, nodes if there.issuperset(nodes) else [])
        deadline = time.monotonic() + 0.1
        return all(
            group.wait(max(0.0, deadline - time.monotonic())) for group in self._groups[name]
        )

    def release(self, name: str) -> None:
        """Take back what `reserve` asked for."""
        self.remove(self._groups.pop(name, []))

    def take(self, name: str, wanted: Demand) -> list[Any]:
        """The placement groups of a process that starts, none if it asks for nothing. Raises
        ConfigError if no machine has room for it.
        """
        deadline = time.monotonic() + PLACE_TIMEOUT_S
        while not self.reserve(name, wanted):
            if time.monotonic() > deadline:
                self.release(name)
                raise ConfigError(
                    f"no machine of the cluster has room for {name} ({self.describe(wanted)})"
                )
        return self._groups.pop(name)

    def nodes(self, group: Any) -> list[str]:
        """Of a group that is there, each once."""
        from ray.util.placement_group import placement_group_table

        return list(dict.fromkeys(placement_group_table(group)["bundles_to_node_id"].values()))

    def remove(self, groups: list[Any]) -> None:
        """Give room back."""
        from ray.util.placement_group import remove_placement_group

        for group in groups:
            remove_placement_group(group)

    def describe(self, wanted: Demand) -> str:
        """What is asked for and what is free, in words."""
        free = "; ".join(machine.words() for machine in self.machines(free=True))
        return f"{wanted.words()}; free are {free}"

    def _ask(self, name: str, wanted: Demand, nodes: list[str]) -> None:
        """`nodes` says where, if there is room when it comes to that."""
        from ray.util.placement_group import placement_group

        if name in self._groups:
            return
        if wanted.engine:
            each = wanted.single()
            there = [{NODE: node} for node in nodes for _ in each]
            self._groups[name] = [
                placement_group(
                    each * wanted.machines, strategy="PACK", bundle_label_selector=there or None
                )
            ]
            return
        self._groups[name] = [
            placement_group(
                [wanted.bundle()], strategy="STRICT_PACK",
                _soft_target_node_id=nodes[i] if nodes else None,
            )
            for i in range(wanted.machines if wanted.bundle() else 0)
        ]  # fmt: skip
