"""`sppo-cli eval` and `samples`: what a model can do, and what it says."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sppo.errors import ConfigError, SppoError
from sppo.launch import terminal

from .samples_command import samples

FORMATS = ("alpaca-eval", "arena-hard")
SAY_S = 10.0


def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            help="A run, one of its checkpoints (RUN/checkpoints/step-...), a folder in Hugging "
            "Face format, or a hub id."
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="A preset or TOML file whose task, sampling and scorer to use, or a task.name; "
            "default: the run's own.",
        ),
    ] = "",
    n: Annotated[int, typer.Option("--n", min=0, help="Held-out prompts; 0: all.")] = 0,
    k: Annotated[int, typer.Option("--k", min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Default: 0 (greedy) for one answer, else the run's."),
    ] = None,
    against: Annotated[
        str,
        typer.Option("--against", help="base, another target, or a file of answers."),
    ] = "",
    scorer: Annotated[str, typer.Option("--scorer", help="Another scorer.name.")] = "",
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write each answer here, a line of JSON each.")
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="Write --out as alpaca-eval or arena-hard read answers."),
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up`. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer a task's held-out prompts with a model, and say how good the answers are.

    Accuracy with its 95 % interval, mean reward, pass@k and majority@k, lengths, truncation; with
    --against how often the answers win, in both orders, with a sign test and the length-controlled
    figure. Ctrl-C ends the engine and leaves. What each figure is: docs/evaluation.md.
    """
    _check_output(out, format_)
    from sppo.evaluation.run import Plan

    plan = Plan(
        target=target, task=task, n=n, k=k, temperature=temperature, against=against,
        scorer=scorer, engine=engine, overrides=list(set_ or ()),
    )  # fmt: skip
    found, items = _run(plan)
    if out is not None:
        out.write_text(_written(items, format_, found), encoding="utf-8")
    typer.echo(json.dumps(found) if as_json else "\n".join(lines(found)))
    if out is not None and not as_json:
        typer.echo(f"written: {out}")


def _run(plan: Any) -> tuple[dict[str, Any], list[Any]]:
    """With what libraries print kept in a log, which goes if all is well."""
    from sppo import stop
    from sppo.evaluation import run as evaluation
    from sppo.launch import roles

    handle, name = tempfile.mkstemp(prefix="sppo-eval-", suffix=".log")
    os.close(handle)
    shown = sys.stderr.isatty()
    try:
        with stop.interrupting(), terminal.kept_for_us(Path(name), sys.stderr) as stream:
            roles.prepare()
            found = evaluation.run(
                plan, lambda text: print(text, file=stream, flush=True), Counter(stream, live=shown)
            )
    except KeyboardInterrupt:
        Path(name).unlink()
        typer.echo("stopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    except ConfigError:
        Path(name).unlink()
        raise
    except SppoError as error:
        raise type(error)(f"{error}; what was printed meanwhile is in {name}") from error
    Path(name).unlink()
    return found


class Counter:
    """Says how far a long piece of work is: in place on a terminal, every ten seconds elsewhere."""

    def __init__(self, stream: Any, *, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        last, now = done == of, time.monotonic()
        if self._live:
            end = "\n" if last else ""
            print(f"\r{what} {done}/{of}", end=end, file=self._stream, flush=True)
        elif last or now - self._said > SAY_S:
            self._said = now
            print(f"{what} {done}/{of}", file=self._stream, flush=True)


def _check_output(out: Path | None, format_: str) -> None:
    if format_ and format_ not in FORMATS:
        raise ConfigError(f"--format {format_}: there are {', '.join(FORMATS)}")
    if format_ and out is None:
        raise ConfigError(f"--format {format_} needs --out FILE")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")


def _written(items: Sequence[Any], format_: str, found: dict[str, Any]) -> str:
    from sppo.evaluation import formats, results

    if not format_:
        return "".join(json.dumps(results.row(item)) + "\n" for item in items)
    tickets, answers = [item.ticket for item in items], [item.ours for item in items]
    return formats.FORMATS[format_](tickets, answers, found["target"], found["task"])


def lines(found: dict[str, Any]) -> list[str]:
    """The figures for a person."""
    how = "greedy" if found["temperature"] == 0 else f"temperature {found['temperature']:g}"
    failed = f", {found['failed']} that the scorer did not answer for" if found["failed"] else ""
    answers = "1 answer" if found["k"] == 1 else f"{found['k']} answers"
    told = [f"{found['target']}: {found['n']} prompts{failed}, {answers} each, {how}"]
    if found["accuracy"] is not None:
        told += [
            f"accuracy            {_share(found['accuracy'])} {_interval(found['interval'])}",
            f"mean reward         {found['reward_mean']:.4g}",
        ]
    for t, value in (found["pass_at"] or {}).items():
        told.append(f"{f'pass@{t}':19} {_share(value)}")
    if found["majority"] is not None:
        told.append(f"{'majority@' + str(found['k']):19} {_share(found['majority'])}")
    told += [f"mean length         {found['length_mean']:.1f} tokens",
             f"truncated           {_share(found['truncated_share'])}"]  # fmt: skip
    return told + (_against(found["against"]) if found["against"] else [])


def _against(met: dict[str, Any]) -> list[str]:
    told = ["", f"against {met['name']}"]
    if met["win_rate"] is None:
        return [*told, "win rate            the scorer could decide nothing"]
    unread = f", {met['unread']} undecided" if met["unread"] else ""
    told += [
        f"win rate            {_share(met['win_rate'])} {_interval(met['interval'])}",
        f"wins, ties, losses  {met['wins']}, {met['ties']}, {met['losses']}{unread}; sign test "
        f"p = {met['p']:.2g}",
        f"length-controlled   {_share(met['length_controlled'])} "
        f"{_interval(met['length_controlled_interval'])}",
    ]
    if met["order_matters_share"]:
        told.append(f"order decided       {_share(met['order_matters_share'])} of the prompts")
    if met["accuracy"] is not None:
        told.append(
            f"its accuracy        {_share(met['accuracy'])} "
            f"{_interval(met['interval_of_accuracy'])}"
        )
    return [*told, f"its mean length     {met['length_mean']:.1f} tokens"]


def _share(value: float) -> str:
    return f"{value:.1%}"


def _interval(ends: Sequence[float]) -> str:
    return f"[{_share(ends[0])}, {_share(ends[1])}]"


def register(app: typer.Typer) -> None:
    """Add these commands to `sppo-cli`."""
    app.command(
        "eval",
        epilog="Examples: sppo-cli eval runs/quickstart --against base | sppo-cli eval "
        "HuggingFaceTB/SmolLM2-135M-Instruct --task gsm8k --k 8 | sppo-cli eval runs/my-run "
        "--format alpaca-eval --out answers.json",
    )(evaluate)
    app.command(
        epilog="Examples: sppo-cli samples runs/quickstart --step -1 --sort worst | sppo-cli "
        "samples runs/quickstart --grep 'I am sorry' --json"
    )(samples)
