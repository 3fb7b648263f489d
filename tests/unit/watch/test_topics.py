"""The table of docs/watch.md is this one, and names settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

from sppo.config import RunConfig, flatten
from sppo.watch.topics import TOPICS, table

ROOT = Path(__file__).parents[3]


def test_the_documentation_has_the_table() -> None:
    assert table() in (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")


def test_every_setting_that_is_named_exists() -> None:
    known = set(flatten(RunConfig(name="x").model_dump(mode="json")))
    sections = "adapter|objective|optimizer|learner|sampling|generator|scorer|broker|model|weights"
    named = re.findall(rf"\b(?:{sections})\.[a-z_.]+[a-z]", " ".join(map(repr, TOPICS.values())))
    assert len(named) > 10
    assert [name for name in named if name not in known] == []
