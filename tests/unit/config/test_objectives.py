"""Which objectives there are, and what each reads."""

from __future__ import annotations

import pytest

from sppo.config import ObjectiveConfig
from sppo.config.objectives import READS, SAMPLER, check_name, having, reads


@pytest.mark.parametrize("name", [*READS, "mine:Loss", "my.package.losses:Loss"])
def test_ours_and_a_users_own_are_objectives(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "SPPO", "ppo", "mine", "mine:", "1a:B", "a b:C"])
def test_what_is_neither_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match="there are sppo, rspo, inpo, dpo, grpo, or your own as"):
        check_name(name)


def test_every_setting_is_read_by_some_objective() -> None:
    ours = set().union(*READS.values())
    assert ours == set(ObjectiveConfig.model_fields) - {"params"}
    assert reads("mine:Loss", "params")


def test_a_value_counts_only_where_the_objective_reads_its_setting() -> None:
    masked = ObjectiveConfig(weight="masked", reject="token")
    assert having(masked, "sppo", SAMPLER) == ["weight", "reject"]
    assert having(masked, "dpo", SAMPLER) == []
    assert having(ObjectiveConfig(weight="none"), "sppo", SAMPLER) == []
