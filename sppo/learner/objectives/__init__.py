"""What the learner minimises: one module for each objective, all behind one interface (`base`).

objective = make(settings)                      # ours by name, or a user's by import string
selection = objective.select(scored)            # before anything is fed
loss, stats = objective.loss(batch)             # a pure function
"""

from sppo.learner.objectives.base import Objective, ObjectiveBatch, Scored, Selection
from sppo.learner.objectives.registry import OBJECTIVES, check_scores, make

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveBatch",
    "Scored",
    "Selection",
    "check_scores",
    "make",
]
