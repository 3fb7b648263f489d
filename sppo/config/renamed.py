"""Settings that are called otherwise now, or are gone: an old name is an error that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sppo.errors import ConfigError

OBJECTIVE = (
    "eta",
    "target",
    "link",
    "link_temperature",
    "select",
    "label",
    "anchor",
    "iteration_steps",
    "weight",
    "weight_cap",
    "length_normalize",
    "kl_coef",
    "entropy_coef",
)
OPTIMIZER = ("lr", "warmup_steps", "betas", "weight_decay", "max_grad_norm")

NOW = {f"learner.{name}": f"objective.{name}" for name in OBJECTIVE} | {
    f"learner.{name}": f"optimizer.{name}" for name in OPTIMIZER
}
"""Old name to new name."""

RENAMED = {old: f"now {new}" for old, new in NOW.items()}
"""Old name to what is to be said of it."""


def refuse(layers: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Raises ConfigError naming every old setting of these (source, values) and what it is now."""
    found = [
        f"{key}: {RENAMED[key]} (from {source})"
        for source, values in layers
        for key in flatten(values)
        if key in RENAMED
    ]
    if found:
        raise ConfigError("; ".join(found))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"learner": {"lr": 1}}` as `{"learner.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
