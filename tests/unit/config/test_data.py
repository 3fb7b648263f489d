"""[model], [task] and [sampling] by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.config import SamplingConfig, TaskConfig
from sppo.limits import MAX_FRAME


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, float("inf")])
def test_an_argument_of_a_dataset_is_a_plain_value(value: Any) -> None:
    with pytest.raises(ValueError, match="x must be text, a finite number, true or false"):
        TaskConfig(params={"x": value})


def test_a_group_must_fit_a_frame() -> None:
    most = MAX_FRAME // 2 // 8 // 8
    assert SamplingConfig(completions=8, max_tokens=most).max_tokens == most
    with pytest.raises(ValueError, match="one group may take"):
        SamplingConfig(completions=8, max_tokens=most + 1)
