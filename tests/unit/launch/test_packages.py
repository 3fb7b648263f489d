"""Which versions a run was made with."""

from __future__ import annotations

import platform

from sppo import __version__
from sppo.launch import packages


def test_versions_name_what_is_there_and_nothing_else() -> None:
    found = packages.versions()
    assert found["python"] == platform.python_version()
    assert found["sppo"] == __version__
    assert "torch" in found
    assert set(found) <= {"python", "sppo", *packages.NAMED}
