"""A learner, and one vLLM engine whose two ranks are on two machines of a Ray cluster.

    python -m tests.cluster.across ADDRESS < settings as JSON

prints how far it is, a line each: `trained` when a learner has taken steps with it; when the engine
has ended, `ended` and what is said of that; `again` when the next life of the generator begins, in
the same place. (By hand the learner was seen to go on with it.)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sppo import compute, config
from sppo.errors import RoleDiedError, RoleFailedError
from sppo.launch.cluster import Cluster
from tests.cluster.roles import records

MORE, LIMIT_S = 2, 240.0


def main() -> None:
    """See the module."""
    given = json.loads(sys.stdin.readline())
    run = compute.decided(
        config.load("quickstart", [f"{k}={json.dumps(v)}" for k, v in given.items()]), cuda=False
    )
    folder = Path.cwd() / "across"
    (folder / "logs").mkdir(parents=True)
    cluster = Cluster(folder, address=sys.argv[1])
    try:
        # Where there are GPUs: each machine has one to give, and computes on its CPU.
        learner = run.learner.model_copy(update={"device": "cuda"})
        on_gpus = run.model_copy(update={"learner": learner})
        cluster.places.seat(on_gpus, {"generator": 1, "learner": 0})
        for role in ("generator", "learner"):
            cluster.start(role, f"{role}-0", run, "key")
        train(cluster, folder)
        print("trained", flush=True)
        ended = cluster.wait(LIMIT_S)
        assert ended == "generator-0", ended
        try:
            cluster.result(ended)
        except (RoleDiedError, RoleFailedError) as error:
            print("ended", str(error).replace("\n", " | "), flush=True)
        cluster.sweep(ended)
        life = (folder / "pids" / "generator-0.json").read_text()
        cluster.start("generator", ended, run, "key")
        deadline = time.monotonic() + LIMIT_S
        while (folder / "pids" / "generator-0.json").read_text() == life:
            assert time.monotonic() < deadline, "no new life"
            time.sleep(0.1)
        print("again", flush=True)
    finally:
        cluster.shutdown()


def train(cluster: Cluster, folder: Path) -> None:
    """Wait for more steps. Raises what ends a role."""
    target, deadline = len(records(folder)) + MORE, time.monotonic() + LIMIT_S
    while len(records(folder)) < target:
        assert time.monotonic() < deadline, "no step"
        if ended := cluster.wait(0.2):
            cluster.result(ended)


if __name__ == "__main__":
    main()
