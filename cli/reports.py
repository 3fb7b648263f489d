"""What a person reads when a run has ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer


def print_status(state: Mapping[str, Any]) -> None:
    """How a run stands, by the names of status.json; what there is nothing of is left out."""
    for key, value in state.items():
        for name, words in _said(key, value):
            typer.echo(f"{name:18} {words}")


def _said(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if key == "members":
        yield from ((name, _member(found)) for name, found in value.items())
    elif key == "updated":
        from sppo.top.state import ago

        yield key, ago(value)
    elif key == "scale":
        if value.get("refused"):
            yield key, f"refused: {value['refused']}"
    elif isinstance(value, Mapping):
        if value:
            yield key, ", ".join(f"{_number(v)} {k}" for k, v in value.items())
    elif value is not None:
        yield key, _number(value)


def _member(member: Mapping[str, Any]) -> str:
    at = str(member.get("applied", "")).rpartition(":")[2]
    in_hand = member.get("in_hand")
    parts = [
        f"weights of step {at}" if at else "",
        f"{member['tokens']:,} tokens" if member.get("tokens") else "",
        f"{in_hand} groups in hand" if in_hand is not None else "",
        f"on {member['host']}" if member.get("host") else "",
    ]
    return ", ".join(part for part in parts if part)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_run(folder: Path, summary: dict[str, Any], again: Sequence[str]) -> None:
    """How a run ended and what may follow. `again` is the command that started it, as its
    arguments.
    """
    tickets, syncs = summary["tickets"], summary["syncs"]
    busy = ", ".join(f"{role} {share:.0%}" for role, share in summary["busy"].items())
    lines = [
        "",
        f"{'finished' if summary['finished'] else 'stopped'} after step {summary['steps']}, "
        f"{summary['wall_s']:.0f} s"
        + (
            f", peak memory {summary['peak_memory_mb'] / 1024:.1f} GiB of all processes"
            if "peak_memory_mb" in summary
            else ""
        ),
        _held_out(summary),
        f"busy                      {busy}",
        *_time(summary.get("time")),
        f"tickets                   {tickets['issued']} issued, {tickets['trained']} trained, "
        f"{tickets['twice']} twice, {tickets['dead']} dead",
        f"weight syncs              {syncs['count']}, mean {syncs['mean_s']} s, longest "
        f"{syncs['max_s']} s",
        f"checkpoints               {folder}/checkpoints",
    ]
    if summary["finished"]:
        lines += [
            f"exported model            {folder}/export (Hugging Face format){_rounded(summary)}",
            "",
            "try next:",
            f"  {shlex.join(['vllm', 'serve', f'{folder}/export'])}",
            f"  {_command(again, folder, steps=2 * summary['steps'])}",
            f"  {shlex.join(['sppo-cli', 'status', str(folder), '--json'])}",
        ]
        if again[0] == "learner":
            lines.append("  (a learner needs its generators and scorers again: they have left)")
    else:
        lines += ["", f"resume with: {_command(again, folder)}"]
    typer.echo("\n".join(lines))


def _rounded(summary: dict[str, Any]) -> str:
    """The number format, and what it keeps of the training where that is less than all."""
    found = summary.get("export") or {}
    if found.get("left") is None:
        return f", {found['dtype']}" if found else ""
    return f", {found['dtype']}: rounding keeps {found['left']:.0%} of what was trained"


def _command(again: Sequence[str], folder: Path, steps: int = 0) -> str:
    """What goes on with the run of this folder, to `steps` if given."""
    words = ["sppo-cli", *again, "--run-dir", str(folder)]
    if steps:
        words = [w for w in words if not w.startswith("--set=learner.steps=")] + [
            f"--set=learner.steps={steps}"
        ]
    return shlex.join(words)


def _held_out(summary: dict[str, Any]) -> str:
    """The win rate where the scorer compared, the accuracy elsewhere."""
    found = summary.get("win_rate")
    if not found:
        return f"held-out greedy accuracy  {_accuracy(summary)}"
    low, high = found["interval"]
    older = found["step"] != summary["steps"]
    when = f" after step {found['step']}" if older else ""
    text = (
        f"wins against the base     {_percent(found['win_rate'])} [{_percent(low)}, "
        f"{_percent(high)}]{when} ({found['n']} questions, sign test p = {found['p']:.2g})"
    )
    return f"{text}; {_older(summary)}" if older else text


def _accuracy(summary: dict[str, Any]) -> str:
    """Before and after, with the step at which that was measured where it is not the last."""
    found, measured = summary["held_out_accuracy"], [e["step"] for e in summary["evaluations"]]
    if not measured:
        return "not measured"
    when = "after" if measured[-1] == summary["steps"] else f"after step {measured[-1]}"
    text = (
        f"{_percent(found['before'])} before, {_percent(found['after'])} {when} ({found['n']} "
        "questions)"
    )
    return text if when == "after" else f"{text}; {_older(summary)}"


def _older(summary: dict[str, Any]) -> str:
    """Of an evaluation before the last step."""
    return f"not measured since, the last step is {summary['steps']}"


def _time(time: dict[str, float] | None) -> list[str]:
    """Where a step's time went, by what the learner did; parts that round to nothing are left
    out.
    """
    if not time:
        return []
    names = {"wait": "waiting for groups", "sync": "weight sync"}
    parts = {name: seconds for name, seconds in time.items() if name != "step" and seconds >= 0.05}
    shares = ", ".join(f"{names.get(name, name)} {seconds:.1f}" for name, seconds in parts.items())
    return [f"a step                    {time['step']:.1f} s: {shares}"]


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"


def print_chaos(report: dict[str, Any]) -> None:
    """What became of the tickets of a run that was hurt."""
    found = report["audit"]
    typer.echo(
        f"\n{len(report['faults'])} faults in {report['seconds']:.0f} s; tickets: "
        f"{found['issued']} issued, "
        f"{found['trained']} trained, {len(found['twice'])} twice, {len(found['lost'])} lost, "
        f"{len(found['dead'])} dead"
    )
    for check in report["checks"]:
        verdict = "ok " if check["ok"] else "NOT"
        typer.echo(
            f"  {verdict}  {check['name']} = {check['value']:g} {check['unit']} (at most "
            f"{check['bar']:g})"
        )
    accuracy = report["held_out_accuracy"]
    if accuracy:
        typer.echo(
            f"held-out accuracy {_percent(accuracy['before'])} before, "
            f"{_percent(accuracy['after'])} after"
        )
