"""The groups of the last batches as they were trained, for `sppo-cli replay`.

RUN/groups/step-000041.groups    the batch of which step 41 was the first: the versions at which
                                 it was trained, and its groups in the frames in which they
                                 travel (`sppo.transport.codec`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sppo.config import LearnerConfig
from sppo.errors import BadFrame, ConfigError
from sppo.transport import codec
from sppo.types import Group, Version

_SUFFIX = ".groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch before its first step."""

    version: Version
    """Of the policy."""
    published: Version
    """Of the generators."""
    groups: list[Group]


class Kept:
    """Those of one run."""

    def __init__(self, run_dir: Path, config: LearnerConfig) -> None:
        self._folder = run_dir / "groups"
        self._keep = config.keep_groups

    def keep(self, groups: Sequence[Group], version: Version, published: Version) -> None:
        """Write a batch down before it is trained, and delete what is older than
        `learner.keep_groups` steps, or of a line of training that was given up. Raises OSError, as
        where the disk is full, and leaves nothing half written.
        """
        if not self._keep:
            return
        path = self._folder / f"step-{version.n + 1:06d}{_SUFFIX}"
        scratch = path.with_suffix(".partial")
        batch = {
            "version": str(version),
            "published": str(published),
            "frames": [codec.encode_group(group) for group in groups],
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        for first, other in files(self._folder).items():
            if not version.n + 1 - self._keep < first <= version.n + 1:
                other.unlink()
        try:
            scratch.write_bytes(codec.pack(batch))
            scratch.rename(path)
        finally:
            scratch.unlink(missing_ok=True)


def files(folder: Path) -> dict[int, Path]:
    """The files of a folder by the first step of their batch, in order."""
    found = {int(p.stem.removeprefix("step-")): p for p in folder.glob(f"step-*{_SUFFIX}")}
    return dict(sorted(found.items()))


def read(path: Path) -> Batch:
    """What `keep` wrote. Raises ConfigError if the file is damaged."""
    try:
        found = codec.unpack(path.read_bytes())
        return Batch(
            version=Version.parse(found["version"]),
            published=Version.parse(found["published"]),
            groups=[codec.decode_group(frame) for frame in found["frames"]],
        )
    except (BadFrame, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}; its step cannot be taken again: delete the file"
        ) from error
