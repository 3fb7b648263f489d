"""Numbers in words."""

from __future__ import annotations

import pytest

from sppo.scorer.math.spelled import spelled


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("twelve", 12),
        ("Twenty-one", 21),
        ("one hundred and five", 105),
        ("two thousand three hundred", 2300),
        ("three million", 3_000_000),
        ("negative four", -4),
        ("seven apples", 7),
        ("四十二", 42),
        ("一百零五", 105),
        ("两千零三", 2003),
        ("三万五千", 35_000),
        ("十", 10),
        ("二〇二四", 2024),
    ],
)
def test_what_is_read(text: str, value: int) -> None:
    assert spelled(text) == value


@pytest.mark.parametrize(
    "text", ["", "two and three", "five six", "twenty twelve", "one of them is red now", "apples"]
)
def test_what_is_not(text: str) -> None:
    assert spelled(text) is None
