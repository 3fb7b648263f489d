"""A packed row's attention, computed piece by piece: each query with the keys that it may see, and
few others.

A piece is a block of queries of one group, and the keys of its prompt and of its own completions up
to the block's end; what of the prompt lies before the layer's window is left out. Short completions
share a block. No score is computed between groups, and of a long completion the part above the
diagonal is cut off block by block, so that what is spent comes close to what is needed.

Shape suffixes: H query heads, G key heads, L tokens of the row, Q queries, K keys, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from sppo.learner.batching import Span

BLOCK = 128
"""Queries of a piece at most."""

Rule = Callable[..., Any]
"""(row, head, query's position, key's position) to whether it is seen: within what is seen from
afar, what is nearer is seen too.
"""


class Piece(NamedTuple):
    """Queries [start, stop) of the row, and keys [first, last) of the window."""

    start: int
    stop: int
    first: int
    last: int
    mask_QK: Tensor
    """To be added to scores."""


class Window(NamedTuple):
    """Keys that neighbouring pieces share: ranges of the row, laid end to end."""

    keys: tuple[slice, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a layer's attention is made of, in the row's order."""

    windows: tuple[Window, ...]

    @property
    def spent(self) -> int:
        """Pairs of tokens whose score is computed."""
        return sum(piece.mask_QK.numel() for window in self.windows for piece in window.pieces)


def needed(spans: Sequence[Span]) -> int:
    """Pairs of tokens of which one may see the other, in a layer without a window."""
    return sum(n * first + n * (n + 1) // 2 for s in spans for _, n, first in s.segments())


def cut(spans: Sequence[Span], rule: Rule, dtype: torch.dtype, device: torch.device) -> Pieces:
    """The pieces of one row under a layer's rule of positions."""
    masks = _Masks(rule, dtype, device)
    return Pieces(tuple(window for span in spans for window in _windows(span, masks)))


def attend(
    attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    pieces: Pieces, q_HLD: Tensor, k_GLD: Tensor, v_GLD: Tensor,
) -> Tensor:  # fmt: skip
    """[1, H, L, D] of tensors with a first dimension of one row; `attention(q, k, v, mask)` does a
    piece.
    """
    found = []
    for window in pieces.windows:
        k, v = (torch.cat([x[:, :, at] for at in window.keys], 2) for x in (k_GLD, v_GLD))
        found += [
            attention(
                q_HLD[:, :, p.start : p.stop], k[:, :, p.first : p.last],
                v[:, :, p.first : p.last], p.mask_QK,
            )
            for p in window.pieces
        ]  # fmt: skip
    return torch.cat(found, 2)


def _windows(span: Span, masks: _Masks) -> Iterator[Window]:
    together: list[tuple[int, int, int]] = []
    for segment in span.segments():
        if sum(n for _, n, _ in [*together, segment]) > BLOCK:
            if together:
                yield _several(span, together, masks)
            together = []
        if segment[1] > BLOCK:
            yield _long(span, segment, masks)
        elif segment[1]:
            together.append(segment)
    if together:
        yield _several(span, together, masks)


def _several(span: Span, segments: list[tuple[int, int, int]], masks: _Masks) -> Window:
    """Whole segments in one piece."""
    (start, _, position), (last, n, _) = segments[0], segments[-1]
    stop, before = last + n, masks.lowest(position)
    own = slice(start, stop)
    keys = (slice(span.start + before, span.start + span.prompt), own) if position else (own,)
    seen = masks.several(span, segments, before)
    return Window(keys, (Piece(start, stop, 0, seen.shape[1], seen),))


def _long(span: Span, segment: tuple[int, int, int], masks: _Masks) -> Window:
    """One segment, cut into pieces."""
    start, length, position = segment
    lowest = masks.lowest(position)
    prompt, own = slice(span.start + lowest, span.start + span.prompt), slice(start, start + length)
    keys = (prompt, own) if position else (own,)
    pieces = []
    for at in range(0, length, BLOCK):
        a, b = position + at, position + min(at + BLOCK, length)
        low = masks.lowest(a)
        seen = masks.band(a, b, low)
        pieces.append(Piece(start + at, start + b - position, low - lowest, b - lowest, seen))
    return Window(keys, tuple(pieces))


class _Masks:
    """A rule as tensors to be added to scores; those of equal positions are one."""

    def __init__(self, rule: Rule, dtype: torch.dtype, device: torch.device) -> None:
        self._rule, self._dtype, self._device = rule, dtype, device
        self._bands: dict[tuple[int, int, int], Tensor] = {}
        self._lowest: dict[int, int] = {}

    def lowest(self, position: int) -> int:
        """The first position that a query at `position` sees."""
        if position not in self._lowest:
            with unset_fake_temporarily():  # a value, even where tensors have none
                seen = self._seen(self._at(position, position + 1), self._at(0, position + 1))
                self._lowest[position] = int(seen[0].int().argmax())
        return self._lowest[position]

    def band(self, start: int, stop: int, low: int) -> Tensor:
        """Queries at positions [start, stop) of a completion, keys at [low, stop) of it and its
        prompt.
        """
        key = (start, stop, low)
        if key not in self._bands:
            self._bands[key] = self._added(self._seen(self._at(start, stop), self._at(low, stop)))
        return self._bands[key]

    def several(self, span: Span, segments: list[tuple[int, int, int]], before: int) -> Tensor:
        """Whole segments as queries; as keys the prompt from position `before` on, and them."""
        position = torch.cat([self._at(first, first + n) for _, n, first in segments])
        segment = torch.cat([torch.full_like(self._at(0, n), at) for at, n, _ in segments])
        of_key, own = position, segment
        if segments[0][2]:
            prompt = self._at(before, span.prompt)
            of_key = torch.cat([prompt, position])
            own = torch.cat([torch.full_like(prompt, span.start), segment])
        related = (segment[:, None] == own) | (own == span.start)
        return self._added(related & self._seen(position, of_key))

    def _at(self, start: int, stop: int) -> Tensor:
        return torch.arange(start, stop, device=self._device)

    def _seen(self, queries: Tensor, keys: Tensor) -> Tensor:
        zero = torch.zeros_like(queries[:1, None])
        seen: Tensor = self._rule(zero, zero, queries[:, None], keys[None])
        return seen.expand(len(queries), len(keys))

    def _added(self, seen: Tensor) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(~seen, -torch.inf)
