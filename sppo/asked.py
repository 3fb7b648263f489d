"""What a person asks of a learner that runs: a file each in RUN/asked/, heeded between batches.

pause         as long as it is there no batch is taken
checkpoint    taken away when a checkpoint of that step has been begun
evaluate      taken away when the held-out questions have been answered
"""

from __future__ import annotations

from pathlib import Path

PAUSE, CHECKPOINT, EVALUATE = WISHES = ("pause", "checkpoint", "evaluate")


def ask(run_dir: Path, wish: str) -> None:
    """Wish it."""
    folder = run_dir / "asked"
    folder.mkdir(exist_ok=True)
    (folder / wish).touch()


def withdraw(run_dir: Path, *wishes: str) -> None:
    """These are fulfilled, or no longer wished for."""
    for wish in wishes:
        (run_dir / "asked" / wish).unlink(missing_ok=True)


def standing(run_dir: Path) -> list[str]:
    """What is wished for now."""
    return [wish for wish in WISHES if (run_dir / "asked" / wish).exists()]
