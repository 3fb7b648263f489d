"""The page of settings."""

from __future__ import annotations

from pathlib import Path

from sppo import config


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    assert page.endswith(config.reference()), "run `make docs`"
