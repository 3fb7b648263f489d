"""The view as lines of text, for a width and a height."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from sppo import samples
from sppo.evaluation import records
from sppo.top.state import Run, ago

_CONSOLE = Console(width=80, no_color=True)
BARS = "▁▂▃▄▅▆▇█"
LABEL, VALUE = 10, 18
COLOURS = {"finished": "green", "stopped": "yellow", "dead": "bold red", "paused": "bold yellow"}
ROLES = 6
"""Rows of roles at most; more are counted."""
TOLD = 3
"""Lines of warnings."""


def header(run: Run, width: int) -> Text:
    """Name, state, step, time left, and the newest evaluation with its step."""
    status, state = run.status, run.state
    shown = "training" if state.startswith("the learner has waited") else state
    step = f"step {status.get('step', 0)}/{status.get('steps', '?')}"
    left = status.get("seconds_left")
    parts = [step, f"{_clock(left)} left" if run.alive and left else ""]
    if short := records.short(run.held_out):
        parts.append(f"{short} at step {run.held_out['step']}")
    if state == "dead":
        parts = [step, f"no sign of life since {ago(status.get('updated', 0))}"]
    line = Text.assemble((run.name, "bold"), "  ", (shown, COLOURS.get(state, "cyan")))
    line.append("".join(f"  {part}" for part in parts if part))
    for wish in run.asked:
        if wish != state.removesuffix("d"):
            line.append(f"  {wish} asked for", "bold yellow")
    return _fit(line, width)


def roles(run: Run, width: int) -> Text:
    """A table, the learner first."""
    rows = run.roles() if run.alive else []
    name = max([12, *(len(row.name) for row in rows)]) if width >= 60 else 12
    name = min(name, width // 3)
    head = f"{'role':{name}} {'state':10} {'at step':>7} {'tokens/s':>8} {'busy':>5}  "
    lines = [_fit(Text(f"{head}does, or waits for", "dim"), width)]
    for row in rows[:ROLES]:
        rate = "" if row.tokens_per_s is None else f"{row.tokens_per_s:,.0f}"
        busy = "" if row.busy is None else f"{min(1.0, row.busy):.0%}"
        text = f"{row.name[:name]:{name}} {row.state:10} {row.version:>7} {rate:>8} {busy:>5}  "
        lines.append(_fit(Text(text + row.does), width))
    if len(rows) > ROLES:
        lines.append(_fit(Text(f"and {len(rows) - ROLES} more", "dim"), width))
    if not rows:
        lines.append(_fit(Text("nobody is there", "dim"), width))
    return Text("\n").join(lines)


def buffer(run: Run, width: int) -> Text:
    """Where groups are, and how old they are when they are trained."""
    newest = run.records[-1] if run.records else {}
    parts = []
    if (found := run.buffer()) is not None:
        parts.append(f"groups: {found[0]} to sample, {found[1]} with generators, {found[2]} ready")
    if newest.get("staleness_mean") is not None:
        parts.append(
            f"staleness {newest['staleness_mean']:.1f} (max {newest.get('staleness_max')})"
        )
    return _fit(Text("   ".join(parts) or "no group yet"), width)


def curves(run: Run, width: int) -> Text:
    """Reward, accuracy or win rate, mismatch and length, over the steps that are kept."""
    wins = run.held_out.get("win_rate") is not None
    rows = [
        ("reward", "reward_mean", "{:.3f}"),
        ("win rate" if wins else "held-out", "held_out", "{:.3f}"),
        ("mismatch", "mismatch", "{:.2g} nats"),
        ("length", "generated_length_mean", "{:.1f} tokens"),
    ]
    return Text("\n").join(_curve(run, width, *row) for row in rows)


def _curve(run: Run, width: int, label: str, metric: str, form: str) -> Text:
    values = run.curve(metric)
    if metric == "mismatch" and len(values) < 2:
        values = run.curve("mismatch_probe") or values
    if metric == "held_out":  # a step knows of the evaluations before it
        newest = run.held_out.get("win_rate")
        newest = run.held_out.get("accuracy") if newest is None else newest
        values += [newest] if newest is not None else []
    if not values:
        return _fit(Text(f"{label:{LABEL}} not measured", "dim"), width)
    room = max(4, width - LABEL - VALUE - 2)
    line = Text.assemble(
        (f"{label:{LABEL}} ", "dim"), (f"{sparkline(values, room):{room}}", "cyan")
    )
    line.append(f" {form.format(values[-1])}")
    return _fit(line, width)


def sparkline(values: Sequence[float], width: int) -> str:
    """Means of equal parts of the values, from the least to the greatest of them."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [i * len(finite) // count for i in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BARS[0] * count
    return "".join(BARS[min(7, int(8 * (m - low) / (high - low)))] for m in means)


def told(run: Run, width: int) -> Text:
    """The newest warnings and what else happened."""
    lines = []
    for when, text in list(run.told)[-TOLD:]:
        colour = "yellow" if text.startswith("warning") else ""
        lines.append(_fit(Text(f"{ago(when)}  {_flat(text)}", colour), width))
    return Text("\n").join(lines) if lines else _fit(Text("no warnings", "dim"), width)


def sample(run: Run, width: int, height: int) -> Text:
    """The newest sample: prompt, and its best and worst completion."""
    found = run.sample
    if found is None:
        return _fit(Text("no sample yet", "dim"), width)
    scores = samples.scores(found)
    known = [i for i, score in enumerate(scores) if score is not None]
    order = sorted(known, key=lambda i: -float(scores[i] or 0.0)) or list(range(len(scores)))
    prompt = found["messages"][-1]["content"] if found["messages"] else ""
    lines = [_fit(Text(f"sample of step {found['step']}  {found['uid']}", "dim"), width)]
    lines.append(_fit(Text(f"> {_flat(prompt)}"), width))
    for i in dict.fromkeys([order[0], order[-1]]):
        score = "" if scores[i] is None else f"{scores[i]:.3g}"
        room = max(1, (height - 2) // 2)
        body = Text(f"{score}  {_flat(found['completions'][i])}")
        lines += body.wrap(_CONSOLE, width)[:room]
    return Text("\n").join(lines[: max(1, height)])


def _flat(text: str) -> str:
    """One paragraph, without characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def _fit(line: Text, width: int) -> Text:
    line.truncate(max(1, width), overflow="ellipsis")
    return line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
