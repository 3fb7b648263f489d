"""The names of `objectives.targets` and `objectives.terms` that the step still asks for here."""

from sppo.learner.objectives.targets import (
    bradley_terry,
    compute_scores,
    compute_targets,
    pair_targets,
    select_completions,
)
from sppo.learner.objectives.terms import kl_k3

__all__ = [
    "bradley_terry",
    "compute_scores",
    "compute_targets",
    "kl_k3",
    "pair_targets",
    "select_completions",
]
