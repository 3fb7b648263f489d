"""The figures and the weights of optimizer steps on fixed batches, as they were recorded.

The record is renewed by `python -m tests.unit.learner.test_step_record`, in a commit that says why
the numbers change. Processors differ in their kernels and so in the last bits: equality is to the
bit where arithmetic is that of the recording, and 1e-5 relative elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.types import Group, Version
from tests import makers

RECORD = Path(__file__).with_name("step_record.json")
VOCABULARY = 61
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "one row a completion": {"share_prompt": False},
    "soft mean of win rates": {"target": "softmean", "compared": True, "eta": 2.0},
    "half, best and worst, pair": {
        "target": "half", "select": "best_worst", "label": "pair", "compared": True,
    },
    "iteration, two mini-batches": {"anchor": "iteration", "mini_batches": 2},
    "iteration, right after its snapshot": {
        "anchor": "iteration", "mini_batches": 2, "fresh": True, "target": "softmean",
    },
    "divergence and entropy": {"kl_coef": 0.1, "entropy_coef": 0.01},
    "masked": {"weight": "masked", "weight_cap": 1.5, "target": "softmean"},
    "sequence, three mini-batches": {
        "weight": "sequence", "mini_batches": 3, "steps": 3, "length_normalize": True,
    },
    "behavior": {"anchor": "behavior", "target": "softmean"},
    "batch soft mean": {"target": "batch_softmean", "weight": "none", "mini_batches": 2},
}  # fmt: skip


def compared(groups: list[Group]) -> list[Group]:
    """The same groups with random preferences instead of rewards."""
    rng = np.random.default_rng(0)
    made = []
    for group in groups:
        k = len(group.completions)
        upper = np.triu(rng.random((k, k)), 1)
        table = upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2
        made.append(replace(group, rewards=None, preferences=table.astype(np.float32)))
    return made


def batch() -> list[Group]:
    """Six groups near the policy's own log-probs, two without a signal."""
    groups = makers.random_groups(np.random.default_rng(3), 6, vocabulary=VOCABULARY)
    for i, group in enumerate(groups):
        completions = tuple(
            replace(c, behavior_logprobs=(c.behavior_logprobs / 5 - 3.6).astype(np.float32))
            for c in group.completions
        )
        groups[i] = replace(group, completions=completions)
    for i in (3, 5):
        groups[i] = replace(groups[i], rewards=np.full(len(groups[i].completions), 0.5, np.float32))
    return groups


def measure(path: str, case: str) -> dict[str, Any]:
    """Every figure of the batch's steps, and the weights after them."""
    changes = dict(CASES[case])
    groups = compared(batch()) if changes.pop("compared", False) else batch()
    fresh = changes.pop("fresh", False)
    values = {"groups_per_step": 6, "steps": 60, "lr": 1e-3, "micro_batch_tokens": 64} | changes
    config = makers.training(**values)
    policy = Policy(path, device="cpu", logprobs=Logprobs(temperature=0.7), compute=torch.float32)
    for snapshot in ("anchor", "reference"):
        policy.keep(snapshot, device="cpu")  # type: ignore[arg-type]
    torch.manual_seed(7)
    for parameter in policy.master.values():  # the policy has moved since its snapshots
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    policy.refresh()
    before = [p.detach().clone() for p in policy.master.values()]
    now = Version(epoch=makers.V0.epoch, n=1)
    published = makers.V0 if config.objective.anchor == "iteration" and not fresh else now
    trainer = Trainer(config, policy, Optimizer(config, policy.master))
    records = list(trainer.train(groups, now, published))
    weights = [p.detach() for p in policy.master.values()]
    return {
        "steps": [
            {k: _exact(v) for k, v in record.items() if not (k.endswith("_s") or k == "tickets")}
            for record in records
        ],
        "norm": _norm(weights).hex(),
        "moved": _norm([p - q for p, q in zip(weights, before, strict=True)]).hex(),
        "weights": _digest(*weights),
    }


@contextmanager
def single_threaded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fingerprint() -> dict[str, str]:
    """What the last bits depend on: the version of torch, the processor's vector unit, and what its
    float32 arithmetic makes of fixed numbers.
    """
    numbers = (torch.arange(64 * 48, dtype=torch.float32) * 0.7).sin().reshape(64, 48)
    products = [numbers[:n] @ numbers[:k].T @ numbers[:k] for n in (1, 7, 33) for k in (8, 48)]
    others = [numbers.log_softmax(-1), numbers.exp().sum(0), torch.nn.functional.silu(numbers)]
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "arithmetic": _digest(*products, *others),
    }


def _exact(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(torch.cat([t.flatten().double() for t in tensors]).norm())


def _digest(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def near(found: Any, recorded: Any) -> bool:
    """Equal, or floats within 1e-5 of each other."""
    if isinstance(recorded, str) and isinstance(found, str) and "0x" in recorded:
        a, b = float.fromhex(found), float.fromhex(recorded)
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
    return bool(found == recorded)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_one_that_was_recorded(path: str, case: str) -> None:
    record = json.loads(RECORD.read_text())
    expected = record["cases"][case]
    with single_threaded():
        found = measure(path, case)
        same = fingerprint() == record["fingerprint"]
    assert len(found["steps"]) == len(expected["steps"])
    for step, recorded in zip(found["steps"], expected["steps"], strict=True):
        for name, value in recorded.items():
            assert step[name] == value if same else near(step[name], value), name
    for name in ("norm", "moved"):
        assert near(found[name], expected[name]), name
    assert found["weights"] == expected["weights"] or not same


def main() -> None:
    """Write the record anew."""
    with tempfile.TemporaryDirectory() as folder, single_threaded():
        model = makers.tiny_model(Path(folder), vocabulary=VOCABULARY)
        cases = [f"{json.dumps(case)}: {json.dumps(measure(model, case))}" for case in CASES]
        head = f'{{"fingerprint": {json.dumps(fingerprint())}, "cases": {{\n'
    RECORD.write_text(head + ",\n".join(cases) + "\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
