"""What of a batch is trained in which step, and by which rank."""

from __future__ import annotations

import pytest

from sppo.errors import SppoError
from sppo.types import Group
from tests.unit.learner.tiny import (
    compared,
    take,
)


def test_a_batch_of_rewards_and_preferences_is_refused(path: str, groups: list[Group]) -> None:
    with pytest.raises(
        SppoError, match=r"train-000000001 has rewards.*train-000000000.*objective\.link"
    ):
        take(path, [*compared(groups[:1]), *groups[1:]])
