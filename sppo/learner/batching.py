"""From groups to rows of tokens.

Shape suffixes: B rows, L tokens of a row, T completion tokens of a micro-batch, N its completions.

A prompt stands once, followed by completions of it; one row holds all of a micro-batch's groups:

    tokens      p p p p a a a b b c c c c q q q d d d e e
    positions   0 1 2 3 4 5 6 4 5 4 5 6 7 0 1 2 3 4 5 3 4
    segments    0 0 0 0 1 1 1 2 2 3 3 3 3 4 4 4 5 5 5 6 6

A completion sees its prompt and its own past, never its siblings or another group
(`sppo.learner.masks`), so it gets exactly the log-probs it would get alone, while the prompt is
computed once per group instead of K times. The last token of a completion is only predicted, so it
is not fed. `Rows` says where else a row ends (`sppo.families`).

A group that is larger than a micro-batch is cut between completions; each part has the prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppo.families import Rows
from sppo.types import Group

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """Completions [start, stop) of one group."""

    group: int
    """Position in the batch."""
    start: int
    stop: int


class Span(NamedTuple):
    """A prompt and completions of it, end to end in a row."""

    row: int
    start: int
    """Where in the row the prompt begins."""
    prompt: int
    """Tokens of the prompt."""
    fed: tuple[int, ...]
    """Tokens of each completion, without its last."""

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """(first token in the row, tokens, first position) of the prompt and of each completion."""
        yield self.start, self.prompt, 0
        at = self.start + self.prompt
        for n in self.fed:
            yield at, n, self.prompt
            at += n

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt + sum(self.fed)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Groups or parts of them, laid out for one forward and backward."""

    parts: tuple[Part, ...]
    """What is in it, in order."""
    rows: Rows
    """Where its rows end. Those of one completion are what the model is fed when that is alone."""
    spans: tuple[Span, ...]
    """What is in the rows, in order."""
    tokens_BL: Tensor
    positions_BL: Tensor
    """-1 for padding."""
    segments_BL: Tensor
    """A number for each prompt and each completion, -1 for padding."""
    prompts_BL: Tensor
    """The segment of the token's prompt: what it sees besides its own."""
    select_T: Tensor
    """Index into the flattened [B·L] hidden states of the state that predicts each completion
    token.
    """
    target_T: Tensor
    """The completion tokens, in the order of parts and completions."""
    behavior_T: Tensor
    cu_seqlens: Tensor
    """[N + 1] offsets of the completions in T."""

    @property
    def padding(self) -> int:
        """Padding tokens, all at the ends of rows."""
        return self.tokens_BL.numel() - sum(span.tokens for span in self.spans)


def row_tokens(group: Group, share_prompt: bool) -> list[int]:
    """Tokens of a group: with its prompt once, or of each completion with a prompt of its own."""
    fed = [len(c.token_ids) - 1 for c in group.completions]
    prompt = len(group.prompt_ids)
    return [prompt + sum(fed)] if share_prompt else [prompt + n for n in fed]


def is_cut(group: Group, budget: int, share_prompt: bool) -> bool:
    """Whether a group does not fit in a micro-batch and can be cut."""
    rows = row_tokens(group, share_prompt)
    return len(group.completions) > 1 and len(rows) * max(rows) > budget


def plan(groups: Sequence[Group], budget: int, rows: Rows) -> list[list[Part]]:
    """What goes into each micro-batch, at most `budget` tokens with padding.

    The longest part goes first, each where there is room; where rows are padded, similar lengths go
    together. Only a single completion that is larger with its prompt exceeds it: it goes alone, and
    that is said once.
    """
    if any(n > budget for group in groups for n in row_tokens(group, share_prompt=False)):
        _say_longer(budget)
    shared = rows != "completion"
    parts = [p for i, g in enumerate(groups) for p in _cut(i, g, budget, shared)]
    lengths = [row_tokens(_of(groups, part), shared) for part in parts]
    order = sorted(range(len(parts)), key=lambda i: -max(lengths[i]))
    batches: list[list[int]] = []
    for i in order:
        for batch in batches if rows == "packed" else batches[-1:]:
            inside = [n for j in [*batch, i] for n in lengths[j]]
            if (sum(inside) if rows == "packed" else len(inside) * max(inside)) <= budget:
                batch.append(i)
                break
        else:
            batches.append([i])
    return [[parts[i] for i in sorted(batch)] for batch in batches]


@cache
def _say_longer(budget: int) -> None:
    """Once."""
    log.warning(
        "a completion with its prompt is longer than learner.micro_batch_tokens = %d: such go "
        "alone, and need the memory of their length",
        budget,
    )


def _cut(i: int, group: Group, budget: int, share_prompt: bool) -> list[Part]:
    """The whole group if it fits, else as many neighbouring completions as fit, again and again."""
    if not is_cut(group, budget, share_prompt):
        return [Part(i, 0, len(group.completions))]
    prompt, parts, start, longest, total = len(group.prompt_ids), [], 0, 0, 0
    for k, completion in enumerate(group.completions):
        fed = len(completion.token_ids) - 1
        longest, total = max(longest, fed), total + fed
        size = prompt + total if share_prompt else (k - start + 1) * (prompt + longest)
        if size > budget and k > start:
            parts.append(Part(i, start, k))
            start, longest, total = k, fed, fed
    return [*parts, Part(i, start, len(group.completions))]


def _of(groups: Sequence[Group], part: Part) -> Group:
    return groups[part.group].only(range(part.start, part.stop))


def collate(
    groups: Sequence[Group], parts: Sequence[Part], *, rows: Rows, device: str
) -> MicroBatch:
    """Lay parts of these groups out as one micro-batch; without any, one token and no completion:
    what a rank feeds that has nothing left while others have.
    """
    members = [_of(groups, part) for part in parts]
    spans = _spans(members, rows) if parts else (Span(0, 0, 1, ()),)
    length = max(span.start + span.tokens for span in spans)
    shape = (spans[-1].row + 1, length)
    tokens, marks = np.zeros(shape, np.int64), np.full((3, *shape), -1, np.int64)
    fed = _fed(members, rows)
    number, select = 0, []
    for span in spans:
        prompt, last = number, span.row * length + span.start + span.prompt - 1
        for at, n, first in span.segments():
            inside = (span.row, slice(at, at + n))
            tokens[inside] = next(fed, 0)
            marks[0][inside], marks[1][inside], marks[2][inside] = (
                first + np.arange(n), number, prompt,
            )  # fmt: skip
            if number > prompt:
                flat = span.row * length + at
                select += [last, *range(flat, flat + n)]
            number += 1
    completions = [c for member in members for c in member.completions]
    target = [c.token_ids.astype(np.int64) for c in completions]
    behavior = [c.behavior_logprobs for c in completions]
    positions, segments, prompts = torch.from_numpy(marks).to(device)
    return MicroBatch(
        parts=tuple(parts),
        rows=rows,
        spans=spans,
        tokens_BL=torch.from_numpy(tokens).to(device),
        positions_BL=positions,
        segments_BL=segments,
        prompts_BL=prompts,
        select_T=torch.tensor(select, dtype=torch.int64, device=device),
        target_T=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *target])).to(device),
        behavior_T=torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *behavior])).to(
            device
        ),
        cu_seqlens=torch.tensor([0, *np.cumsum([len(t) for t in target])], device=device),
    )


def _spans(members: Sequence[Group], rows: Rows) -> tuple[Span, ...]:
    spans: list[Span] = []
    at = 0
    for member in members:
        prompt = len(member.prompt_ids)
        fed = [len(c.token_ids) - 1 for c in member.completions]
        for inside in [(n,) for n in fed] if rows == "completion" else [tuple(fed)]:
            row = 0 if rows == "packed" else len(spans)
            spans.append(Span(row, at, prompt, inside))
            at += spans[-1].tokens if rows == "packed" else 0
    return tuple(spans)


def _fed(members: Sequence[Group], rows: Rows) -> Iterator[NDArray[Any]]:
    """Tokens of the segments, in order."""
    for member in members:
        for k, completion in enumerate(member.completions):
            if k == 0 or rows == "completion":
                yield member.prompt_ids
            yield completion.token_ids[:-1]
