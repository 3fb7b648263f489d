"""`sppo-cli config ...`: which setting is in force and why, without starting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sppo import config as settings

app = typer.Typer(no_args_is_help=True, help="Look at configurations without starting anything.")

Source = Annotated[str, typer.Argument(help="A preset, a TOML file, or a run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command(epilog="Example: sppo-cli config show quickstart --set optimizer.lr=1e-6")
def show(
    source: Annotated[
        str,
        typer.Argument(help="A preset, a TOML file, or a run directory; without one, defaults."),
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up`. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print each setting's value and where it came from: default, file, environment or --set.
    Secrets stay hidden.
    """
    found = settings.origins(_file(source), set_)
    if as_json:
        typer.echo(
            json.dumps(
                {key: {"value": value, "from": origin} for key, (value, origin) in found.items()}
            )
        )
        return
    for key, (value, origin) in found.items():
        typer.echo(f"{key:32} {json.dumps(value):42} {origin}")


@app.command(epilog="Example: sppo-cli config schema > sppo.schema.json")
def schema() -> None:
    """Print the JSON schema of a configuration, for editors and checks."""
    typer.echo(json.dumps(settings.RunConfig.model_json_schema(), indent=2))


@app.command(epilog="Example: sppo-cli config diff quickstart runs/quickstart")
def diff(first: Source, second: Source, as_json: AsJson = False) -> None:
    """Print the settings in which two configurations differ. The environment counts for neither."""
    a, b = (_plain(source) for source in (first, second))
    changed = {
        key: [a.get(key), b.get(key)]
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }
    if as_json:
        typer.echo(json.dumps(changed))
        return
    for key, (old, new) in changed.items():
        typer.echo(f"{key:32} {json.dumps(old)} -> {json.dumps(new)}")
    if not changed:
        typer.echo("no difference")


def _file(source: str) -> str:
    if not source:
        return source
    resolved = Path(source) / "config.toml"
    return str(resolved) if resolved.is_file() else source


def _plain(source: str) -> dict[str, Any]:
    import tomllib

    return settings.flatten(
        tomllib.loads(settings.to_toml(settings.load(_file(source), environment=False)))
    )
