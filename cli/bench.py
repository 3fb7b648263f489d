"""`sppo-cli bench ...`: figures that anyone can print again, against a bar or a peer of the same
run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppo.errors import ConfigError, SppoError

if TYPE_CHECKING:
    from sppo.bench.checks import Check
    from sppo.bench.loop import Measured

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

app = typer.Typer(
    no_args_is_help=True, help="Print figures against a bar or a named peer of the same run."
)


@app.command(
    epilog="Examples: sppo-cli bench objective --out bench/objective | sppo-cli "
    "bench objective --train --json"
)
def objective(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the plots and objective.json.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the random policies and games.")
    ] = 0,
    train: Annotated[
        bool, typer.Option("--train", help="Instead, train with each objective, grpo as the peer.")
    ] = False,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Optimizer steps of each run of --train.")
    ] = 60,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="For --train, as for `up quickstart`. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the objective's six statements on policies of twelve arms, by exact expectations, in
    about 10 seconds.

    With --train: run `up quickstart` with each objective for the same number of steps, and print
    held-out accuracy, seconds and samples side by side. About ten minutes each on two cores.
    """
    if train:
        _train_objectives(steps, set_ or [], out, as_json)
        return
    _laboratory(out, seed, as_json)


def _laboratory(out: Path | None, seed: int, as_json: bool) -> None:
    """The six statements, with plots of them in `out`."""
    if out is None:
        raise ConfigError("--out: name a folder for the plots")
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
        "findings": {
            f.check.name: {"statement": f.statement, "series": f.series} for f in findings
        },
        "plots": [str(path) for path in drawn],
    }
    (out / "objective.json").write_text(json.dumps(answer, indent=1), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        for finding in findings:
            check, verdict = finding.check, "ok " if finding.check.ok else "NOT"
            typer.echo(f"\n{finding.statement}")
            typer.echo(
                f"  {verdict}  {check.name} = {check.value:.3g} {check.unit} (at most "
                f"{check.bar:g})"
            )
        typer.echo(f"\nplots and objective.json in {out}, {answer['seconds']} s")
    _fail([f.check.name for f in findings if not f.check.ok])


def _train_objectives(steps: int, overrides: list[str], out: Path | None, as_json: bool) -> None:
    from sppo.bench import plots
    from sppo.bench import train as bench

    with _kept(out) as folder:
        found = bench.measure(
            steps, overrides, [sys.executable, sys.argv[0]], folder,
            lambda text: typer.echo(text, err=True),
        )  # fmt: skip
        checks = bench.checks(found)
        answer = {"runs": [asdict(run) for run in found]}
        if out is not None:
            plots.draw_training({run.objective: run.curve for run in found}, out / "training.png")
            (out / "objective.json").write_text(
                json.dumps(answer | {"checks": [asdict(c) for c in checks]}, indent=1),
                encoding="utf-8",
            )
    if not as_json:
        typer.echo("\n" + "\n".join(bench.table(found)))
    _answer(answer, checks, as_json)


@app.command(epilog="Example: sppo-cli bench transport --json")
def transport(
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.5, help="How long each way is measured each time.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Scored groups through a real server between two processes, against pickle, msgpack lists,
    plain bytes.
    """
    from sppo.bench import transport as bench

    rates = bench.measure(seconds, lambda text: typer.echo(text, err=True))
    checks = bench.checks(rates)
    if not as_json:
        typer.echo(f"\n{'way':22} {'group':>9}  {'log':7} {'groups/s':>10} {'MB/s':>8}")
        for rate in rates:
            log = "durable" if rate.durable else "none"
            size = f"{rate.nbytes >> 10:5} KiB  {log:7}"
            typer.echo(f"{rate.way:22} {size} {rate.groups_per_s:10.1f} {rate.mb_per_s:8.1f}")
    _answer({"rates": [asdict(rate) for rate in rates]}, checks, as_json)


@app.command(epilog="Example: sppo-cli bench sync --json")
def sync(
    syncs: Annotated[
        int, typer.Option("--syncs", min=1, help="Weight syncs to average over.")
    ] = 10,
    model: Annotated[str, typer.Option("--model", help="As model.name.")] = "smollm2-135m",
    with_vllm: Annotated[
        bool, typer.Option("--vllm/--no-vllm", help="Also with a real engine that reloads.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Seconds of one weight sync by phase, against a copy of the same bytes in memory. About a
    minute.
    """
    from sppo.bench import sync as bench

    found = bench.measure(
        model, syncs, with_vllm=with_vllm, say=lambda text: typer.echo(text, err=True)
    )
    if not as_json:
        typer.echo(
            f"\n{found.nbytes / 1e6:.0f} MB of weights; a copy in memory takes "
            f"{found.memcpy_s:.3f} s"
        )
        typer.echo(
            f"{'engine':22} {'stage':>8} {'ready':>8} {'transfer':>9} {'whole':>8} {'paused':>8}  "
            f"seconds, mean"
        )
        for s in found.engines:
            typer.echo(
                f"{s.engine:22} {s.stage_s:8.3f} {s.ready_s:8.3f} {s.transfer_s:9.3f} "
                f"{s.total_s:8.3f} {s.pause_s:8.3f}"
            )
        if found.reload_s is not None:
            typer.echo(f"of which the engine's own reload: {found.reload_s:.3f} s")
    _answer(asdict(found), bench.checks(found), as_json)


@app.command(epilog="Example: sppo-cli bench kernels --out bench/kernels")
def kernels(
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="How often each way is timed.")
    ] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small size and one round; speed is not judged.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the plot and kernels.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Token log-probs of the chunked head against the full computation and peers: time, memory,
    error.

    The bars of the ratios of time are meant for a CPU with AMX bf16; without it they are shown and
    not judged. A peer is compared with the path of its rounding: float32 logits, or logits rounded
    to bf16. On a GPU: a grid of sizes.
    """
    from sppo.bench import kernels as bench

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"{device!r}: there are auto, cpu, cuda", param_hint="--device")
    found = bench.measure(
        device,  # type: ignore[arg-type]
        1 if quick else rounds,
        quick=quick,
        say=lambda text: typer.echo(text, err=True),
    )
    if out is not None:
        from sppo.bench import plots

        out.mkdir(parents=True, exist_ok=True)
        (out / "kernels.json").write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
        plots.draw_kernels(found.rows, out / "kernels.png")
    if not as_json:
        typer.echo(
            f"\n{found.device}, {found.threads} threads, AMX bf16: "
            f"{'yes' if found.amx_bf16 else 'no'}"
        )
        typer.echo(
            f"{'T':>6} {'H':>5} {'V':>7}  {'way':28} {'mode':8} {'seconds':>9} {'20 %':>9} "
            f"{'80 %':>9} "
            f"{'TFLOP/s':>8} {'MiB':>7} {'nats':>8}"
        )
        for r in found.rows:
            memory = "" if r.extra_mib is None else f"{r.extra_mib:.0f}"
            typer.echo(
                f"{r.size.tokens:6} {r.size.hidden:5} {r.size.vocabulary:7}  {r.way:28} {r.mode:8} "
                f"{r.median_s:9.4f} "
                f"{r.low_s:9.4f} {r.high_s:9.4f} {r.tflops_per_s:8.2f} {memory:>7} "
                f"{r.error_nats:8.1e}"
            )
        for way, reason in found.missing.items():
            typer.echo(f"{way}: {reason}")
        if found.device == "cpu" and not found.amx_bf16 and not quick:
            typer.echo("this CPU has no AMX bf16: the ratios of time are not judged")
    _answer(asdict(found), bench.checks(found, quick=quick), as_json)


@app.command(
    epilog="Examples: sppo-cli bench loop --json | sppo-cli bench loop --to-accuracy --out "
    "bench/loop"
)
def loop(
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Counted steps of each side in each round.")
    ] = 12,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="How often each side runs, by turns.")
    ] = 2,
    accuracy_steps: Annotated[
        int,
        typer.Option(
            "--accuracy-steps",
            min=0,
            help="At most so many steps to an accuracy of 0.35; 0: not tried.",
        ),
    ] = 60,
    to_accuracy: Annotated[
        bool, typer.Option("--to-accuracy", help="TRL to that accuracy as well.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up quickstart`. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for both sides' runs and loop.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The whole loop, `up quickstart`, against TRL's GRPOTrainer on a CPU: completions trained a
    second, their ratio.

    Same model, questions, batch, sampling, optimizer, threads and number format; the sides
    alternate, and each has the machine for itself. Start-up, the first two steps and our last are
    not counted. The bar is meant for the preset as it is, in the format that the processor is fast
    in. Then the seconds to a held-out accuracy of 0.35, evaluations every five steps included;
    TRL's take long, so only when asked for. Needs `pip install 'sppo[bench]'`.
    """
    from sppo.bench import loop as bench

    plan = bench.Plan(
        overrides=tuple(set_ or ()), steps=steps, rounds=rounds, accuracy_steps=accuracy_steps,
        peer_to_accuracy=to_accuracy,
    )  # fmt: skip
    with _kept(out) as folder:
        found = bench.measure(
            plan, [sys.executable, sys.argv[0]], folder, lambda text: typer.echo(text, err=True)
        )
        checks = bench.checks(found)
        if out is not None:
            (folder / "loop.json").write_text(
                json.dumps(asdict(found) | {"checks": [asdict(c) for c in checks]}, indent=1),
                encoding="utf-8",
            )
    if not as_json:
        _show_loop(found)
    _answer(asdict(found), checks, as_json)


def _show_loop(found: Measured) -> None:
    typer.echo(
        f"\n{found.compute}, {found.threads} threads, {', '.join(found.cpu)}; "
        f"{found.completions_per_step} completions a step"
    )
    typer.echo(f"{'side':6} {'samples/s':>10} {'seconds a step':>15} {'±':>6} {'start-up s':>11}")
    for name, s in found.sides.items():
        typer.echo(
            f"{name:6} {s.samples_per_s:10.2f} {s.step_s:15.2f} {s.step_s_sd:6.2f} "
            f"{s.startup_s:11.0f}"
        )
    for r in found.to_accuracy:
        what = f"{r.seconds:.0f} s" if r.seconds is not None else "not reached"
        typer.echo(
            f"{r.side:6} to a held-out accuracy of 0.35: {what} ({r.accuracy:.3f} at step {r.step})"
        )
    if found.compute != found.fast_compute:
        typer.echo(f"this processor is fast in {found.fast_compute}: the ratio is not judged")
    if others := max(r.others for r in found.rounds):
        typer.echo(f"others used at most {others:.0%} of this machine when a side started")


@contextmanager
def _kept(out: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which must be new, or one that is removed afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="sppo-bench-") as folder:
            yield Path(folder)
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    yield out


def _answer(answer: dict[str, Any], checks: list[Check], as_json: bool) -> None:
    """Print the checks; raises SppoError if one does not hold."""
    if as_json:
        typer.echo(json.dumps(answer | {"checks": [asdict(c) for c in checks]}))
    else:
        for check in checks:
            verdict = {True: "ok ", False: "NOT", None: "-- "}[check.ok]
            typer.echo(
                f"  {verdict}  {check.name} = {check.value:.3g} {check.unit} (bar {check.bar:g})"
            )
    _fail([c.name for c in checks if c.ok is False])


def _fail(names: list[str]) -> None:
    if names:
        raise SppoError(f"not within the bar: {', '.join(names)}")
