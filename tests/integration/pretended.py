"""A run's roles on a Ray of two machines that are pretended: two raylets on this one, each said to
have GPUs. `python -m tests.integration.pretended FOLDER` prints what was placed where, and what a
learner made whose two ranks are on both.

FOLDER holds `model/`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sppo import compute, config
from sppo.launch import own_ray
from sppo.launch.cluster import Cluster
from sppo.launch.room import staff
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer

SECONDS = 90.0


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1]).resolve()
    os.environ |= own_ray.ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}
    from ray.cluster_utils import Cluster as Machines

    each = {"num_gpus": 8, "object_store_memory": own_ray.OBJECT_STORE_BYTES}
    machines = Machines(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **each}
    )
    machines.add_node(num_cpus=1, **each)
    cluster = Cluster(folder, address=machines.address)
    try:
        print(json.dumps({"placed": placed(cluster), "trained": trained(cluster, folder)}))
    finally:
        cluster.shutdown()
        machines.shutdown()


def placed(cluster: Cluster) -> dict[str, list[str]]:
    """Machines of each process of the preset `cluster`, as Ray reserved them."""
    from ray.util.placement_group import placement_group_table

    run = compute.placed(config.load("cluster", environment=False), cuda=True)
    cluster.places.seat(run, staff(run))
    found = {}
    for name in [f"{role}-{i}" for role, n in staff(run).items() for i in range(n)]:
        groups = cluster.places.take(name, cluster.places.wanted(name[:-2], name, run))
        tables = [placement_group_table(group) for group in groups]
        found[name] = [table["bundles_to_node_id"][0] for table in tables]
        cluster.places.remove(groups)
    return found


def trained(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """The outcome of a learner of two ranks, each on a machine of its own."""
    run = compute.decided(settings(folder), cuda=False)
    server = EmbeddedServer(folder / "broker", max_bytes=64 << 20)
    broker = run.broker.model_copy(update=server.start(run.broker).model_dump())
    run = run.model_copy(update={"broker": broker})
    registry = connect(broker, "key").registry
    try:
        cluster.places.seat(run, staff(run))
        for role, name in (("learner", "learner-0"), ("generator", "generator-0")):
            cluster.start(role, name, run, "key")
        deadline = time.monotonic() + SECONDS
        while (ended := cluster.wait(1.0)) is None:
            assert time.monotonic() < deadline, "nobody has ended"
        nodes = {
            path.stem: json.loads(path.read_text())["node"]
            for path in (folder / "pids").glob("learner*.json")
        }
        outcome = cluster.result(ended)
        registry.request_stop("workers", "done")
        cluster.wait(20.0)
        return {"ended": ended, "steps": outcome["steps"], "nodes": nodes}
    finally:
        server.stop()


def settings(folder: Path) -> config.RunConfig:
    """Tiny, on CPUs: the learner's ranks ask for one each, and one machine has one."""
    given = {
        "model.name": str(folder / "model"), "task.name": f"jsonl:{folder / 'rows.jsonl'}",
        "task.held_out": 0, "task.max_prompt_tokens": 16, "sampling.max_tokens": 4,
        "sampling.completions": 2,
        "task.prompt": "{question}",
        "scorer.name": "tests.integration.conftest:even_length", "scorer.mode": "inline",
        "generator.engine": "transformers", "generator.threads": 1,
        "learner.device": "cpu", "learner.ranks": 2, "learner.cpus": 1, "learner.threads": 2,
        "learner.steps": 2, "learner.groups_per_step": 2, "learner.parity_threshold": 1,
        "compute": "float32",
    }  # fmt: skip
    rows = [{"question": f"w{i} w{i + 1}", "answer": "w1"} for i in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "logs").mkdir(exist_ok=True)
    return config.load("quickstart", [f"{k}={json.dumps(v)}" for k, v in given.items()])


if __name__ == "__main__":
    main()
