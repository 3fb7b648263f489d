"""`sppo-cli eval` and `samples`: what a model can do, and what it says."""

from __future__ import annotations

import typer

from .samples_command import samples


def register(app: typer.Typer) -> None:
    """Add these commands to `sppo-cli`."""
    app.command(
        epilog="Examples: sppo-cli samples runs/quickstart --step -1 --sort worst | sppo-cli "
        "samples runs/quickstart --grep 'I am sorry' --json"
    )(samples)
