"""A rank of the learner besides the first: does its share of whatever rank 0 orders, and ends with
it.

Started by `sppo.learner.ranks.lead` as `python -m sppo.learner.follower`; its settings come by
standard input.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from sppo import config as settings
from sppo.learner import rank, ranks
from sppo.learner.groups import Fetched
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
    team, given = ranks.follow()
    run = settings.from_json(given["config"])
    broker = connect(settings.BrokerConfig(**given["broker"]), given["run_key"], wait=True)
    groups = Fetched(team, broker.tickets, Spool(Path(given["run_dir"])))
    own, _ = rank.make(run, team, given["device"], groups)
    log.info("rank %d of %d is ready", team.rank, team.size)
    try:
        own.follow()
    finally:
        broker.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # gloo's threads now and then abort a process that ends in the ordinary way


if __name__ == "__main__":
    main()
