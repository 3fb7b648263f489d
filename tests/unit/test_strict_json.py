"""What JSON loses silently is refused by name."""

from __future__ import annotations

import pytest

from sppo import strict_json


def test_plain_json_is_read() -> None:
    assert strict_json.loads('{"a": [1, 2.5, null, "é"]}') == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e999", "1e999 is too large"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_would_lose_something_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strict_json.loads(text)
