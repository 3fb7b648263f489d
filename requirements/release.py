"""What keeps this tree from being released: `make release-check`. Nothing is uploaded or tagged.

The version of sppo/__init__.py is a plain one (1.2.3) without a tag; the first section of
CHANGELOG.md is it, with its date, in the form of keepachangelog.com; nothing is uncommitted; what
README.md links to in the tree is there; a wheel is built, and its metadata is valid.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}


def version(root: Path) -> str:
    """Read, not imported."""
    text = (root / "sppo" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def about_the_version(root: Path) -> list[str]:
    """Its form, its tag, its section."""
    this = version(root)
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", this):
        found.append(f"sppo/__init__.py: version {this!r} is not of the form 1.2.3")
    if _git(root, "tag", "--list", f"v{this}"):
        found.append(f"the tag v{this} is there: {this} is released; raise the version")
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    first = next((line for line in changes.splitlines() if line.startswith("## ")), "## nothing")
    if not re.fullmatch(rf"## \[{re.escape(this)}\] - \d{{4}}-\d\d-\d\d", first):
        found.append(f"CHANGELOG.md begins with {first[3:]!r}, not with '[{this}] - YYYY-MM-DD'")
    odd = {line[4:] for line in changes.splitlines() if line.startswith("### ")} - HEADINGS
    found += [f"CHANGELOG.md has {name!r}; there are {', '.join(sorted(HEADINGS))}" for name in odd]
    return found


def about_the_tree(root: Path) -> list[str]:
    """What is not committed, and links to what is not there."""
    found = []
    if changed := _git(root, "status", "--porcelain").splitlines():
        found.append(f"{len(changed)} files are not as committed, {changed[0][3:]} among them")
    text = (root / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        if not (root / target).exists():
            found.append(f"README.md links to {target}, which is not there")
    return found


def about_the_wheel(root: Path) -> list[str]:
    """Whether it can be built, and what is wrong with its metadata."""
    from packaging.metadata import Metadata

    with tempfile.TemporaryDirectory() as folder:
        built = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
             f"--wheel-dir={folder}", str(root)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if built.returncode:
            return [f"no wheel can be built: {built.stderr.strip().splitlines()[-1]}"]
        (wheel,) = Path(folder).glob("sppo-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
            data = archive.read(name)
    try:
        found = Metadata.from_email(data, validate=True)
    except ExceptionGroup as errors:
        return [f"the wheel's metadata: {error}" for error in errors.exceptions]
    if str(found.version) != version(root):
        return [f"the wheel is {found.version}, the tree {version(root)}"]
    return []


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout


def main() -> int:
    found = [*about_the_version(ROOT), *about_the_tree(ROOT), *about_the_wheel(ROOT)]
    for line in found:
        print(f"not yet: {line}", file=sys.stderr)
    if not found:
        print(f"{version(ROOT)} can be tagged: git tag v{version(ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
