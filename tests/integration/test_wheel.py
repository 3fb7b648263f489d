"""The wheel: all that the tree has is in it. From an empty folder it trains in test_end_to_end;
`make test-wheel` lets pip fetch all that it needs.
"""

from __future__ import annotations

import zipfile
from email.parser import Parser
from pathlib import Path

from sppo import __version__
from tests.integration.conftest import REPOSITORY


def test_all_of_the_tree_is_in_it_and_the_version_is_the_one(wheel: Path) -> None:
    tree = {
        f"{'sppo_cli' if folder == 'cli' else folder}/{path.relative_to(REPOSITORY / folder)}"
        for folder in ("sppo", "cli")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(about).decode())
    assert {name for name in names if ".dist-info/" not in name} == tree
    assert metadata["Version"] == __version__
    assert wheel.name == f"sppo-{__version__}-py3-none-any.whl"
    assert metadata["License-Expression"] == "Apache-2.0"
