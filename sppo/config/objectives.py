"""Which objectives there are and which settings of [objective] each reads, known without torch.

The mathematics is in `sppo/learner/objectives`. A setting that the chosen one does not read is
refused where it was set, instead of being ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

GROUPED = ("sppo", "rspo")
"""Objectives with a target for each completion of a group."""

_ALL = {
    *("name", "link", "link_temperature", "anchor", "iteration_steps", "reference_every"),
    *("length_normalize", "kl_coef", "kl_estimator", "entropy_coef"),
    *("temperature", "truncated", "max_reward"),
}
_CORRECTION = {"weight", "weight_cap", "reject", "reject_low", "reject_high"}
_SPPO = _ALL | _CORRECTION | {"eta", "target", "select", "label"}

READS: Mapping[str, frozenset[str]] = {
    "sppo": frozenset(_SPPO),
    "rspo": frozenset(_SPPO | {"reverse_kl_coef"}),
    "inpo": frozenset(_ALL | _CORRECTION | {"eta", "kappa", "select", "label"}),
    "dpo": frozenset(_ALL | {"beta"}),
    "grpo": frozenset(_ALL | _CORRECTION | {"select", "clip_low", "clip_high"}),
}
"""Objective to the settings that it reads. A user's own may read all."""

Kind = Mapping[str, frozenset[str]]
"""Settings to those of their values that have something in common."""

SAMPLER: Kind = {
    "weight": frozenset({"geometric", "sequence", "masked", "token"}),
    "reject": frozenset({"geometric", "token"}),
    "anchor": frozenset({"behavior"}),
}
"""They compare log-probs with those that the sampler reported."""
ITERATES: Kind = {"anchor": frozenset({"iteration"})}
"""They last for an iteration."""
WHOLE_BATCH: Kind = {"target": frozenset({"batch_softmean"})}
"""They look at a batch as one group."""
WIN_RATE: Kind = {"target": frozenset({"half"})}
"""They are made of win rates."""

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_name(name: str) -> str:
    """The name of an objective. Raises ValueError with those that there are."""
    if name not in READS and not _OWN.fullmatch(name):
        raise ValueError(f"there are {', '.join(READS)}, or your own as package.module:Class")
    return name


def reads(name: str, setting: str) -> bool:
    """Whether this objective reads this setting of [objective]."""
    return name not in READS or setting in READS[name]


def having(settings: BaseModel, name: str, kind: Kind) -> list[str]:
    """Settings, among those that the objective `name` reads, whose value is of this kind."""
    return [s for s, values in kind.items() if reads(name, s) and getattr(settings, s) in values]


def unread(name: str, changed: Mapping[str, Any]) -> list[str]:
    """Those of the changed settings that this objective does not read."""
    return [setting for setting in changed if not reads(name, setting)]
