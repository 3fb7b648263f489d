"""Plots of what benchmarks found, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sppo.bench.checks import Finding
from sppo.bench.kernels import Row


def draw(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write `<check>.png` for each finding into `folder`; returns their paths."""
    paths = []
    for finding in findings:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        PLOTS[finding.check.name](axes, finding.series)
        axes.set_title(finding.statement, fontsize=8)
        axes.grid(alpha=0.3)
        path = folder / f"{finding.check.name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _fixed_point(axes: Axes, series: Mapping[str, Any]) -> None:
    errors = series["max |log π − log π*| by sampler"]
    targets = list(next(iter(errors.values())))
    for i, target in enumerate(targets):
        at = [x + 0.25 * (i - 1) for x in range(len(errors))]
        axes.bar(at, [max(e[target], 1e-16) for e in errors.values()], width=0.25, label=target)
    axes.set_xticks(range(len(errors)), list(errors))
    axes.set_yscale("log")
    axes.set_ylabel("max |log π − log π*|, nats")
    axes.set_xlabel("what sampled")
    axes.legend(fontsize=8, loc="center right")


def _baseline(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, norms in series[
        "norm of what is added"
    ].items():  # the same lengths: ν − π_θ either way
        style = "o-" if "stale" in name else "s--"
        axes.plot(series["distance between sampler and policy"], norms, style, label=name)
    axes.set_xlabel("distance between sampler and policy (share of the way to another one)")
    axes.set_ylabel(f"norm of the gradient that c = {series['c']} adds")
    axes.legend(fontsize=8)


def _partition(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, errors in series["root mean square error"].items():
        line = "-" if "with ρ" in name else "--"
        axes.loglog(series["K"], errors, line, color="C0" if "log Z" in name else "C1", label=name)
    axes.set_xlabel("K, completions in the group")
    axes.set_ylabel("root mean square error")
    axes.set_xscale("log", base=2)
    axes.legend(fontsize=8)


def _gradient(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, bias in series["relative bias of softmean"].items():
        axes.loglog(series["K"], bias, marker="o", label=f"softmean, {name}")
    shares = series["centered share of the on-policy gradient"]
    axes.loglog(
        series["centered K"], [1 - s for s in shares], "k^", label="centered, w = ρ (short by 1/K)"
    )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("K, completions in the group")
    axes.set_ylabel("|expected gradient − on-policy| / |on-policy|")
    axes.legend(fontsize=8)


def _gap(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, gaps in series["duality gap"].items():
        axes.loglog(series["updates"], gaps, label=f"{name} updates old opponents")
    axes.set_xlabel("updates")
    axes.set_ylabel("duality gap of the average iterate")
    axes.legend(fontsize=8)


def _partial(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, spread in series["standard deviation"].items():
        compare, _, game = name.partition(", ")
        color = "C0" if compare == "circular" else "C1"
        marker = "o" if game == "cycles" else "s"
        asked = series["comparisons"][compare]
        within = series["standard deviation within the group"][name]
        axes.plot(asked, spread, f"-{marker}", color=color, label=name)
        axes.plot(asked, within, f":{marker}", color=color, label=f"{name}, less the group's mean")
    axes.set_xlabel("comparisons of a group of six (15 are all)")
    axes.set_ylabel("standard deviation of a win rate")
    axes.legend(fontsize=7)


PLOTS: dict[str, Callable[[Axes, Mapping[str, Any]], None]] = {
    "fixed_point": _fixed_point,
    "baseline_on_policy": _baseline,
    "weighted_partition": _partition,
    "on_policy_gradient": _gradient,
    "duality_gap": _gap,
    "partial_comparisons": _partial,
}


def draw_kernels(rows: Sequence[Row], path: Path) -> None:
    """Time and peak memory of every way, forward beside forward and backward, at the last size that
    was measured.
    """
    rows = [row for row in rows if row.size == rows[-1].size]
    ways = list(dict.fromkeys(row.way for row in rows))
    figure = Figure(figsize=(10, 0.7 * len(ways) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, mode in enumerate(("forward", "full")):
        at = [y + 0.4 * (i - 0.5) for y in range(len(ways))]
        chosen = [next(row for row in rows if row.way == way and row.mode == mode) for way in ways]
        spread = [[r.median_s - r.low_s for r in chosen], [r.high_s - r.median_s for r in chosen]]
        left.barh(at, [r.median_s for r in chosen], 0.4, xerr=spread, label=mode)
        right.barh(at, [r.extra_mib or 0.0 for r in chosen], 0.4, label=mode)
    left.set_yticks(range(len(ways)), ways)
    left.invert_yaxis()
    left.set_xlabel("seconds, median with 20 % and 80 %")
    right.set_xlabel("extra memory at the peak, MiB")
    right.legend()
    size = rows[-1].size
    figure.suptitle(
        f"T = {size.tokens}, H = {size.hidden}, V = {size.vocabulary}, bf16", fontsize=9
    )
    figure.savefig(path, dpi=120)


def draw_training(curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Held-out accuracy by optimizer step, a line for each objective."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, label=name)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("held-out accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
