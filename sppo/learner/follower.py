"""A rank of the learner besides the first: does its share of whatever rank 0 orders, and ends with
it.

Started by `sppo.learner.ranks.Team.lead` as `python -m sppo.learner.follower`; its settings come by
standard input.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from sppo import config as settings
from sppo.config import RunConfig, cpu_threads
from sppo.errors import BadFrame
from sppo.learner.model import Logprobs, check_device
from sppo.learner.optim import Optimizer
from sppo.learner.ranks import Team
from sppo.learner.sharded import ShardedPolicy
from sppo.learner.spool import Spool
from sppo.learner.step import Trainer, unpack_share
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.transport.redis_broker import connect
from sppo.types import Group, QueueEntry, Version

log = logging.getLogger("sppo.learner.follower")


class Follower:
    """One rank's policy, optimizer and shares."""

    def __init__(
        self, config: RunConfig, policy: ShardedPolicy, team: Team, broker: Broker, spool: Spool
    ) -> None:
        self._policy = policy
        self._team = team
        self._broker = broker
        self._spool = spool
        self._optimizer = Optimizer(config.optimizer, policy.master, team)
        self._trainer = Trainer(config, policy, self._optimizer, team)

    def run(self) -> None:
        """Until rank 0 is done. Raises RoleDiedError if it, or another rank, is gone."""
        for order in self._team.orders():
            self._obey(**order)

    def _obey(self, do: str, **given: Any) -> None:
        policy = self._policy
        match do:
            case "train":
                self._train(**given)
            case "mismatch":
                self._mismatch(**given)
            case "keep":
                policy.join_keep(given["snapshot"], given["device"], given["file"])
            case "drop":
                policy.join_drop(given["snapshot"])
            case "weights":
                _exhaust(policy.join_weights(given["snapshot"] or None))
            case "masters":
                _exhaust(policy.join_masters())
            case "moments":
                _exhaust(self._optimizer.join_state())
            case "load":
                policy.join_load(given["file"])
            case "load_moments":
                self._optimizer.join_load(given["file"])
            case _:
                raise ValueError(f"no order {do!r}")

    def _train(
        self, shares: Sequence[Any], normalizers: Sequence[int], version: str, published: str
    ) -> None:
        mine = [packed for ranks in shares for packed in ranks[self._team.rank]]
        groups = self._fetch([(packed["uid"], packed["gid"]) for packed in mine])
        own = unpack_share(self._team, shares, normalizers, groups)
        _exhaust(self._trainer.take_steps(own, Version.parse(version), Version.parse(published)))

    def _mismatch(
        self, uids: Sequence[Any], gids: Sequence[Any], version: str, snapshot: Any
    ) -> None:
        names = list(zip(uids[self._team.rank], gids[self._team.rank], strict=True))
        groups = self._fetch(names)
        self._trainer.measure(
            [groups[uid] for uid, _ in names], Version.parse(version), snapshot or None
        )

    def _fetch(self, names: Sequence[tuple[str, str]]) -> dict[str, Group]:
        """Groups by ticket, from the broker or the learner's disk; what is in neither comes from
        rank 0.
        """
        found = {uid: self._one(uid, gid) for uid, gid in names}
        self._team.gather([uid for uid, group in found.items() if group is None])
        sent = self._team.broadcast(None)
        return {uid: group or codec.decode_group(sent[uid]) for uid, group in found.items()}

    def _one(self, uid: str, gid: str) -> Group | None:
        entry = QueueEntry(entry_id="", gid=gid, uid=uid, stream="train", nbytes=0)
        frame = self._broker.fetch(entry) or self._spool.frame(uid)
        try:
            return None if frame is None else codec.decode_group(frame)
        except BadFrame as error:  # rank 0 has read it whole
            log.warning("the group of ticket %s is fetched from rank 0: %s", uid, error)
            return None


def _exhaust(things: Iterable[Any]) -> None:
    for _ in things:
        pass


def main() -> None:
    """Be the rank that standard input names."""
    from sppo import compute, models

    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s rank %(name)s: %(message)s",
    )
    team, given = Team.follow()
    run = settings.from_json(given["config"])
    device = check_device(given["device"], team.rank)
    if device == "cpu":
        torch.set_num_threads(max(1, cpu_threads(run.learner.threads) // team.size))
    policy = ShardedPolicy(
        models.resolve(run.model), team, device=device, logprobs=Logprobs.of(run, device),
        compute=compute.dtype(run),
    )  # fmt: skip
    broker = connect(settings.BrokerConfig(**given["broker"]), given["run_key"], wait=True)
    log.info("rank %d of %d is ready", team.rank, team.size)
    try:
        Follower(run, policy, team, broker, Spool(Path(given["run_dir"]))).run()
    finally:
        broker.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # gloo's threads now and then abort a process that ends in the ordinary way


if __name__ == "__main__":
    main()
