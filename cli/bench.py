"""`sppo-cli bench ...`: figures that anyone can print again, against a bar or a peer of the same run."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sppo.errors import SppoError

app = typer.Typer(no_args_is_help=True, help="Print figures against a bar or a named peer of the same run.")


@app.command(epilog="Example: sppo-cli bench objective --out bench/objective")
def objective(
    out: Annotated[Path, typer.Option("--out", help="Folder for the plots and objective.json.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random policies and games.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the objective's five statements on policies of twelve arms, by exact expectations, in about 10 seconds."""
    out.mkdir(parents=True, exist_ok=True)
    from sppo.bench import objective as laboratory
    from sppo.bench import plots

    started = time.monotonic()
    findings = []
    for name, experiment in laboratory.EXPERIMENTS.items():
        if not as_json:
            typer.echo(f"{name} ...", err=True)
        findings.append(experiment(seed))
    drawn = plots.draw(findings, out)
    answer = {
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "checks": [asdict(f.check) for f in findings],
        "findings": {f.check.name: {"statement": f.statement, "series": f.series} for f in findings},
        "plots": [str(path) for path in drawn],
    }
    (out / "objective.json").write_text(json.dumps(answer, indent=1))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        for finding in findings:
            check, verdict = finding.check, "ok " if finding.check.ok else "NOT"
            typer.echo(f"\n{finding.statement}")
            typer.echo(f"  {verdict}  {check.name} = {check.value:.3g} {check.unit} (at most {check.bar:g})")
        typer.echo(f"\nplots and objective.json in {out}, {answer['seconds']} s")
    failed = [f.check.name for f in findings if not f.check.ok]
    if failed:
        raise SppoError(f"not within the bar: {', '.join(failed)}")
