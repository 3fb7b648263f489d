"""The report as one HTML file that loads nothing: script, style and data are inside, and a content
security policy forbids everything else.

Models write what they like. Their words travel as compressed data, and the script puts them on the
page as text, never as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError
from sppo.metrics import METRICS
from sppo.report import gather

MOST_BYTES = 8_000_000
"""Of the file; samples are left out for it, whole steps at a time, and the page says so."""
MOST_TEXT_BYTES = 16_000_000
"""Of the samples before they are compressed: what a browser unpacks in a moment."""

CHARTS: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
    ("Reward", [("reward_mean", "mean")]),
    ("Held-out accuracy or win rate, with its 95 % interval", []),
    ("Loss", [("loss", "loss")]),
    ("Mismatch of engine and learner, nats", [("mismatch", "batch"), ("mismatch_probe", "probe")]),
    ("Effective sample size", [("effective_sample_size", "weights"),
                               ("effective_sample_size_untruncated", "before their cap")]),
    ("Staleness, steps", [("staleness_mean", "mean"), ("staleness_max", "largest")]),
    ("Length, tokens", [("generated_length_mean", "generated"), ("length_mean", "trained")]),
    ("Share cut at max_tokens", [("truncated_share", "truncated")]),
    ("Tokens trained a second", [("trained_tokens_s", "tokens/s")]),
    ("Seconds of a whole step", [("whole_s", "whole")]),
    ("… of waiting for groups", [("wait_s", "wait")]),
    ("… of forward, backward and update", [("step_s", "train"), ("anchor_s", "anchor log-probs")]),
    ("… of the weight sync", [("sync_s", "sync")]),
)  # fmt: skip
"""Titles, and what each shows: columns of `gather.run`'s metrics with a word for the legend. The
one without is of evaluations.
"""
OTHERS = ("step", "epoch", "wall_s")
"""Metrics that no chart shows; all that are neither here nor above are below the fold."""


def make(run_dirs: Sequence[Path]) -> str:
    """The page of these runs, side by side. Raises ConfigError where one is none."""
    if len({path.resolve() for path in run_dirs}) < len(run_dirs):
        raise ConfigError(f"{', '.join(map(str, run_dirs))}: name each run once")
    runs = [gather.run(run_dir) for run_dir in run_dirs]
    _tell_apart(runs, run_dirs)
    said = {"runs": runs, "charts": _charts(runs), "meanings": METRICS}
    data = _packed(gather.as_json(said))
    names = ", ".join(run["name"] for run in runs)
    page = _fill(names, data, "")
    return _fill(names, data, _samples(run_dirs, MOST_BYTES - len(page.encode())))


def _tell_apart(runs: Sequence[dict[str, Any]], run_dirs: Sequence[Path]) -> None:
    """Runs of one name are called by as much of their paths as tells them apart."""
    paths = [run_dir.resolve().parts for run_dir in run_dirs]
    for parts in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    for run, name in zip(runs, names, strict=True):
        run["name"] = name


def _charts(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    shown = {name for _, series in CHARTS for name, _ in series}
    there = [name for run in runs for name in run["metrics"]]
    rest = [name for name in dict.fromkeys(there) if name not in shown and name not in OTHERS]
    return {
        "main": [{"title": title, "series": list(series)} for title, series in CHARTS],
        "rest": [{"title": name, "series": [(name, name)]} for name in rest],
    }


def _samples(run_dirs: Sequence[Path], budget: int) -> str:
    """Of every run as many as fit together: of every step, every second, every fourth, ..."""
    found = [gather.kept_samples(run_dir) for run_dir in run_dirs]
    there = [len(samples) for samples in found]
    stride = 1
    while True:
        kept = [_every(samples, stride) for samples in found]
        text = gather.as_json({"every": stride, "kept": kept, "there": there})
        if len(text) <= MOST_TEXT_BYTES or not any(kept):
            packed = _packed(text)
            if len(packed) <= budget or not any(kept):
                return packed
        stride *= 2


def _every(samples: Sequence[dict[str, Any]], stride: int) -> list[dict[str, Any]]:
    """Those of every so-manieth step; of none when one step in a thousand would be too much."""
    steps = sorted({sample["step"] for sample in samples})
    kept = set(steps[::stride]) if stride <= 1024 else set()
    return [sample for sample in samples if sample["step"] in kept]


def _packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


def _fill(names: str, data: str, samples: str) -> str:
    files = resources.files("sppo.report")

    def read(name: str) -> str:
        return (files / name).read_text(encoding="utf-8")

    style = read("vendor/uPlot.min.css") + read("page.css")
    scripts = read("vendor/uPlot.min.js"), read("page.js")
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_digest, scripts))}; "
        f"style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy), "names": html.escape(names), "style": style,
        "library": scripts[0], "script": scripts[1], "data": data, "samples": samples,
    }  # fmt: skip
    pieces = read("page.html").split("{{")
    return pieces[0] + "".join(
        parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
