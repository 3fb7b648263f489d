"""One engine whose two ranks Ray puts on two of its nodes, here two raylets of this machine with a
GPU each: `python -m tests.gpu.across FOLDER cuda` prints what `tests.parallel` saw, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sppo import compute
from sppo.launch import own_ray
from sppo.launch.actor import lead
from sppo.launch.places import Places
from tests import families, parallel

TWO = {"tensor_parallel": 2}


class Generator:
    """What the actor of a generator does, without a broker."""

    def life(self, path: str, device: str) -> dict[str, Any]:
        from sppo.generators.vllm_engine import VllmEngine

        lead(os.environ)
        on_cpu = device == "cpu"
        number_format = "float32" if on_cpu else "bfloat16"
        run = parallel.settings(compute=number_format, **TWO)
        engine = VllmEngine(run, path, transport="gloo", on_cpu=on_cpu, spread=True)

        async def whole() -> parallel.Seen:
            await engine.start()
            try:
                return await parallel.life(engine, path)
            finally:
                await engine.close()

        return asdict(asyncio.run(whole()))


def main() -> None:
    """See the module."""
    path, device = families.save("llama", Path(sys.argv[1])), sys.argv[2]
    os.environ |= own_ray.ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    nodes = [
        {"num_cpus": 1, "num_gpus": 1, "object_store_memory": own_ray.OBJECT_STORE_BYTES,
         "env_vars": {"CUDA_VISIBLE_DEVICES": str(number)}}
        for number in range(2)
    ]  # fmt: skip
    there = Cluster(
        initialize_head=True, connect=True,
        head_node_args=nodes[0] | {"include_dashboard": False},
    )  # fmt: skip
    try:
        there.add_node(**nodes[1])
        places = Places(ray)
        run = compute.placed(parallel.settings(**TWO), cuda=True)
        places.seat(run, {"generator": 1, "learner": 0})
        (group,) = places.take("generator-0", places.wanted("generator", "generator-0", run))
        inside = PlacementGroupSchedulingStrategy(group, 0)
        actor = ray.remote(Generator).options(
            num_cpus=0, num_gpus=0, scheduling_strategy=inside
        )  # fmt: skip
        seen = ray.get(actor.remote().life.remote(path, device))
        print(json.dumps({**seen, "after": sorted(seen["after"])}))
    finally:
        ray.shutdown()
        there.shutdown()


if __name__ == "__main__":
    main()
