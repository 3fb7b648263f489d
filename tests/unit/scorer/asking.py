"""Requests to scorers that hold a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sppo.scorer.calls import Request, find, make

QUESTION = "what is the sum of two and three ?"
ANSWERS = ("it is five", "i think it is a long long answer : four", "bad", "one + two + two .")


def request(*completions: str, uid: str = "u", question: str = QUESTION, **more: Any) -> Request:
    return Request(
        uid=uid, question=question, completions=completions or ANSWERS,
        data={"answer": "it is five .", **more.pop("data", {})}, **more,
    )  # fmt: skip


def made(path: Path, maker: Callable[[Path], None]) -> str:
    """A model with the same random weights in every run."""
    path.mkdir(exist_ok=True)
    torch.manual_seed(0)
    maker(path)
    return str(path)


def scorer(target: str, **options: Any) -> Any:
    """As the process that scores makes it, set up."""
    found = make(target.rpartition(":")[2], find(target)[0], options)
    found.setup()
    return found
