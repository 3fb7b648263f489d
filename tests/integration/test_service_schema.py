"""The scorer's service holds to its own OpenAPI description: schemathesis makes requests of it,
right ones and wrong ones, the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from sppo.metrics import BusyClock
from sppo.scorer import base
from sppo.scorer.app import build
from sppo.scorer.meter import Meter

TOKEN = "sesame"
EXAMPLES = 40


def comparison(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[list[float]]:
    """Longer is better; a single text gets its length."""
    sizes = [len(text) for text in completions]
    if len(sizes) == 1:
        return sizes  # type: ignore[return-value]
    return [[0.5 + 0.5 * ((a > b) - (a < b)) for b in sizes] for a in sizes]


@pytest.fixture
def schema() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.SCORERS, "longer", comparison)
        scorer = base.InlineScorer("longer", timeout_s=5.0)
        application = build(scorer, Meter(BusyClock()), TOKEN, timeout_s=5.0)
        yield schemathesis.openapi.from_asgi("/openapi.json", application)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_requests_of_every_kind_are_answered_as_described(
    schema: Any, mode: GenerationMode
) -> None:
    paths = []
    for operation in schema.get_all_operations():
        paths.append(operation.ok().path)

        @given(case=operation.ok().as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(
                headers={"Authorization": f"Bearer {TOKEN}"},
                # Lists that must be as long as another are beyond what a schema can say.
                excluded_checks=[positive_data_acceptance],
            )

        holds()
    assert sorted(paths) == ["/healthz", "/metrics", "/score"]
