"""One PNG for each finding of the objective's laboratory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sppo.bench.checks import Finding


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
    for name, norms in series["norm of what is added"].items():  # the same lengths: ν − π_θ either way
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
    axes.loglog(series["centered K"], [1 - s for s in shares], "k^", label="centered, w = ρ (short by 1/K)")
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


PLOTS: dict[str, Callable[[Axes, Mapping[str, Any]], None]] = {
    "fixed_point": _fixed_point,
    "baseline_on_policy": _baseline,
    "weighted_partition": _partition,
    "on_policy_gradient": _gradient,
    "duality_gap": _gap,
}
