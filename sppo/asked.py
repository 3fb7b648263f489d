"""What a person asks of a learner that runs: a file each in RUN/asked/, heeded between batches.

pause         as long as it is there no batch is taken
checkpoint    taken away when a checkpoint of that step has been begun
evaluate      taken away when the held-out questions have been answered
"""

from __future__ import annotations

import os
from pathlib import Path

PAUSE, CHECKPOINT, EVALUATE = WISHES = ("pause", "checkpoint", "evaluate")


def begin(run_dir: Path) -> None:
    """Make the folder: whoever trains can then take out what anybody, root too, puts in."""
    (run_dir / "asked").mkdir(exist_ok=True)


def ask(run_dir: Path, wish: str) -> None:
    """Wish it."""
    begin(run_dir)
    (run_dir / "asked" / wish).touch()


def withdraw(run_dir: Path, *wishes: str) -> None:
    """These are fulfilled, or no longer wished for."""
    for wish in wishes:
        (run_dir / "asked" / wish).unlink(missing_ok=True)


def standing(run_dir: Path) -> list[str]:
    """What is wished for now; nothing where the folder may not be read."""
    return [wish for wish in WISHES if os.path.exists(run_dir / "asked" / wish)]
