"""What keeps a tree from being released is named, one thing each."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CHANGES = (
    "# Changelog\n\n## [1.2.3] - 2026-01-02\n\n### Added\n\n- All.\n\n## [1.2.2] - 2026-01-01\n"
)


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "requirements/release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(tree: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=tree, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One that can be released."""
    (tmp_path / "sppo").mkdir()
    (tmp_path / "sppo/__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    (tmp_path / "README.md").write_text("[a](sppo/__init__.py#x) [b](https://example.org)\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def test_a_tree_that_is_ready(release: ModuleType, tree: Path) -> None:
    assert release.about_the_version(tree) == []
    assert release.about_the_tree(tree) == []


def test_a_version_that_is_released(release: ModuleType, tree: Path) -> None:
    git(tree, "tag", "v1.2.3")
    assert release.about_the_version(tree) == [
        "the tag v1.2.3 is there: 1.2.3 is released; raise the version"
    ]


def test_a_changelog_without_it(release: ModuleType, tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text("## [Unreleased]\n\n### Mended\n")
    assert release.about_the_version(tree) == [
        "CHANGELOG.md begins with '[Unreleased]', not with '[1.2.3] - YYYY-MM-DD'",
        "CHANGELOG.md has 'Mended'; there are Added, Changed, Deprecated, Fixed, Removed, Security",
    ]


def test_a_version_for_development(release: ModuleType, tree: Path) -> None:
    (tree / "sppo/__init__.py").write_text('__version__ = "1.3.0.dev0"\n')
    assert "'1.3.0.dev0' is not of the form 1.2.3" in release.about_the_version(tree)[0]


def test_what_is_not_committed_and_links_to_nowhere(release: ModuleType, tree: Path) -> None:
    (tree / "README.md").write_text("[a](docs/none.md)\n")
    assert release.about_the_tree(tree) == [
        "1 files are not as committed, README.md among them",
        "README.md links to docs/none.md, which is not there",
    ]


def test_this_tree_has_a_version_and_a_changelog(release: ModuleType) -> None:
    from sppo import __version__

    assert release.version(ROOT) == __version__
    assert not [line for line in release.about_the_version(ROOT) if "there are" in line]
