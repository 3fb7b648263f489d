"""Data sets in their published formats, as the hub's own tools keep them on a disk: what the
presets name is found there without a network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

ROWS = Path(__file__).parents[1] / "examples" / "data"
SPPO = "UCLA-AGI/data-mistral-7b-instruct-sppo-iter"


def rows(name: str) -> list[dict[str, Any]]:
    """A file of examples/data."""
    text = (ROWS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def keep(cache: Path) -> None:
    """Put all of them into a hub cache (HF_HUB_CACHE)."""
    problems, prompts = rows("gsm8k"), rows("prompts")
    _keep(cache, "openai/gsm8k", {"main": {"train": problems[3:], "test": problems[:3]}})
    math = rows("math")
    _keep(cache, "DigitalLearningGmbH/MATH-lighteval", {"": {"train": math[2:], "test": math[:2]}})
    tests = [row | {"answer": "?", "unique_id": str(i)} for i, row in enumerate(math[:2])]
    _keep(cache, "HuggingFaceH4/MATH-500", {"": {"test": tests}})
    _keep(cache, "trl-lib/ultrafeedback-prompt", {"": {"train": rows("ultrafeedback")}})
    for number, part in enumerate((prompts[:14], prompts[14:27], prompts[27:]), start=1):
        chosen = [row | {"chosen_probs": 0.5, "chosen": [], "rejected": []} for row in part]
        _keep(cache, f"{SPPO}{number}", {"": {"train": chosen}})


def _keep(cache: Path, name: str, subsets: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """A repository of Parquet files, by subset (empty: it has none) and split."""
    folder = cache / f"datasets--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee", encoding="utf-8")
    snapshot = folder / "snapshots" / "c0ffee"
    card = ["---", "configs:"]
    for subset, splits in subsets.items():
        card += [f"- config_name: {subset or 'default'}", "  data_files:"]
        for split, found in splits.items():
            path = f"{subset or 'data'}/{split}-00000-of-00001.parquet"
            card += [f"  - split: {split}", f"    path: {path}"]
            (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pa.Table.from_pylist(found), snapshot / path)
    (snapshot / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
