"""examples/scorers/code.toml: its settings, and its rows scored."""

from __future__ import annotations

import json
from pathlib import Path

from sppo.config import load
from sppo.scorer import calls
from sppo.scorer.base import SCORERS, check_options

EXAMPLES = Path(__file__).parents[4] / "examples" / "scorers"
PROGRAMS = [
    "def middle(items):\n    return sorted(items)[len(items) // 2]\n",
    "def vowels(text):\n    return {v: text.count(v) for v in 'aeiou' if v in text}\n",
    "for i in range(int(input())):\n    print(i + 1)\n",
]


def test_the_example_is_scored() -> None:
    scorer = load(str(EXAMPLES / "code.toml"), environment=False).scorer
    check_options(scorer.name, scorer.options)
    target = SCORERS[scorer.name]
    assert isinstance(target, str)
    made = calls.load(scorer.name, target, {**scorer.options, "timeout_s": 20.0})
    rows = [json.loads(line) for line in (EXAMPLES / "code.jsonl").read_text().splitlines()]
    for row, program in zip(rows, PROGRAMS, strict=True):
        completions = [f"```python\n{program}```", "def"]
        request = calls.Request(uid="1", question=row["text"], completions=completions, data=row)
        (reply,) = made.call([request])
        assert reply["rewards"] == [1, 0]
