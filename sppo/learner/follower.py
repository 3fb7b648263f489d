"""A rank of the learner besides the first: does its share of whatever rank 0 orders, and ends with
it.

Started by `sppo.learner.ranks.lead` as `python -m sppo.learner.follower`, and its settings come by
standard input; or by hand (`sppo.learner.place`); or, with `--placed`, both: on another machine
(`sppo.launch.spread`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from sppo import compute, stop
from sppo import config as settings
from sppo.errors import ConfigError
from sppo.learner import place as places
from sppo.learner import rank, ranks
from sppo.learner.by_hand import meet
from sppo.learner.groups import Fetched
from sppo.learner.place import Place
from sppo.learner.spool import Spool
from sppo.transport.redis_broker import connect

log = logging.getLogger("sppo.learner.follower")


def main() -> None:
    """Be the rank that standard input names."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s rank %(name)s: %(message)s",
    )
    if sys.argv[1:] == ["--placed"]:
        _placed()
    team, given = ranks.follow()
    _serve(team, given, settings.BrokerConfig(**given["broker"]))


def _placed() -> None:
    """The rank that the environment names, with settings by standard input."""
    stop.ignore()
    stop.end_with_parent()
    given = json.loads(sys.stdin.read())
    if os.getppid() != given["parent"]:  # it died before `end_with_parent`
        sys.exit(1)
    run = settings.from_json(given["config"])
    run = run.model_copy(update={"broker": settings.BrokerConfig(**given["broker"])})
    place = places.find(run, os.environ)
    assert place is not None, "one rank needs no other machine"
    by_hand(run, place)


def by_hand(config: settings.RunConfig, place: Place) -> None:
    """Be the rank that this process was started as. Its broker is the one of its own settings, the
    rest is rank 0's. Raises ConfigError if it does not see rank 0's run directory.
    """
    stop.ignore()  # a batch system tells every rank to end: rank 0 answers, which saves first
    device = compute.here(config).learner.device
    team = meet(place, device, config.rank_deadline_s)
    given = team.broadcast(None) | {"device": device}
    if not Path(given["run_dir"]).is_dir():
        raise ConfigError(
            f"--run-dir {given['run_dir']} of rank 0 is not there for rank {place.rank} on "
            f"{socket.gethostname()}: put it on a file system that all machines share"
        )
    _serve(team, given, config.broker)


def _serve(team: ranks.Ranks, given: dict[str, Any], at: settings.BrokerConfig) -> None:
    run = settings.from_json(given["config"])
    broker = connect(at, given["run_key"], wait=True)
    groups = Fetched(team, broker.tickets, Spool(Path(given["run_dir"])))
    own, _ = rank.make(run, team, given["device"], groups)
    log.info("rank %d of %d is ready", team.rank, team.size)
    try:
        own.follow()
    except Exception:
        own.writer.rescue()
        raise
    finally:
        broker.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # gloo's threads now and then abort a process that ends in the ordinary way


if __name__ == "__main__":
    main()
