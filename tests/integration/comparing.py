"""A user's objective that needs comparisons."""

from __future__ import annotations

from examples.objective.ipo import Ipo


class Comparing(Ipo):
    needs = Ipo.needs | {"preferences"}
