"""What settings are made of."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from sppo.config.fields import FREE, Count, Scale, Seconds, Settings, Share, Table, plain_table


class Section(Settings):
    count: Annotated[Count, FREE] = 0
    share: Share = 0.0
    seconds: Seconds = 1.0
    scale: Scale = 1.0
    on: bool = False
    table: Table = Field(default_factory=dict)


@pytest.mark.parametrize("name", ["count", "share", "seconds", "scale"])
def test_true_is_no_number(name: str) -> None:
    with pytest.raises(ValueError, match="must be a number, not true or false"):
        Section(**{name: True})  # type: ignore[arg-type]
    assert Section(on=True).on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", -1),
        ("count", 2**63),
        ("share", 1.1),
        ("seconds", 0),
        ("seconds", 1e7),
        ("scale", 1e10),
        ("scale", float("nan")),
    ],
)
def test_every_number_has_an_end(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Section(**{name: value})  # type: ignore[arg-type]


def test_a_section_has_no_other_settings_and_does_not_change() -> None:
    with pytest.raises(ValueError, match="other"):
        Section(other=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        Section().count = 1  # type: ignore[misc]


def test_a_table_holds_plain_values() -> None:
    assert plain_table({"a": 1, "b": "x", "c": True, "d": 0.5}) == {
        "a": 1, "b": "x", "c": True, "d": 0.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="a must be text"):
        plain_table({"a": float("nan")})
