"""`sppo-cli bench learner --count`: operations that a step spends and needs, and bytes at its peak,
counted on tensors without memory.

Needed are: each prompt once, six operations a weight and token in linear layers and in the head for
predicted tokens, twelve a pair of tokens that may see each other, head and width. Spent are: linear
layers by torch's own counter; attention by its block mask's count of blocks, of pieces for the
small model, which is for CPUs; the head by what `linear_logprob` does. Torch's counter sees into
neither of the last two.

Two things are computed again in the backward pass instead of being kept: the logits, always, and
layers where `learner.recompute` has it so. Each is counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

from sppo import config as settings
from sppo.bench.checks import Check, at_most, unjudged
from sppo.learner import blocks, pieces
from sppo.plan import learner, shape, trace
from sppo.plan.micro_batch import Layout

SMALL, LARGE = "smollm2-135m", "Qwen/Qwen2.5-7B-Instruct"
ATTENTION_BAR, REST_BAR = 1.10, 1.05
JUDGED = "1024 + 8 x 4096"
PEAK_BAR, LONGEST = 30.0, "1024 + 8 x 16384"
"""GiB of a rank of eight, with all states."""
FEW = 2
"""Layers that are run; one more tells what each adds."""
NEEDED, LOGITS = 6, 2
"""Operations of a weight and token: forward, gradients of input and weight; those of logits, once
more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One group of one shape."""

    shape: str
    model: str
    attention: float
    """Spent over needed."""
    rest: float
    """The same of linear layers and head, without what is computed again."""
    logits: float
    """The same with logits that are computed again."""
    needed: int
    """Operations of forward and backward."""
    spent: int
    spent_again: int
    """With layers computed again."""
    kept: int
    """Bytes of activations from forward to backward, layers computed again, of a micro-batch of
    `tokens`.
    """
    peak: int
    """Bytes at most, of one rank of `ranks`, all states included."""
    tokens: int
    ranks: int


SHAPES = (
    (SMALL, 1, 41, 8, 16), (LARGE, 8, 1024, 8, 512), (LARGE, 8, 1024, 8, 4096),
    (LARGE, 8, 1024, 8, 16384),
)  # fmt: skip
"""Model, ranks, tokens of the prompt, completions, tokens of each."""


def measure() -> list[Count]:
    """All shapes."""
    return [count(*given) for given in SHAPES]


def checks(found: Sequence[Count]) -> list[Check]:
    """The bars: attention at 1,024 + 8 x 4,096, memory at 1,024 + 8 x 16,384, the rest everywhere,
    and with logits computed again where a GPU is for it. In a small model, where the head is a
    fifth of all weights, that is shown and not judged.
    """
    made = []
    for c in found:
        large = c.model == LARGE
        attention = at_most("attention_spent", c.attention, ATTENTION_BAR, f"of needed, {c.shape}")
        logits = at_most("with_logits_again", c.logits, REST_BAR, f"of needed, {c.shape}")
        made += [
            attention if c.shape == JUDGED else unjudged(attention),
            at_most("rest_spent", c.rest, REST_BAR, f"of needed, {c.shape}"),
            logits if large else unjudged(logits),
        ]
        if c.shape == LONGEST:
            made.append(at_most("peak", c.peak / 2**30, PEAK_BAR, f"GiB of a rank, {c.shape}"))
    return made


def count(model: str, ranks: int, prompt: int, completions: int, longest: int) -> Count:
    """One group of this shape."""
    run = settings.load(
        "cluster",
        [f"model.name={model}", f"learner.ranks={ranks}", f"task.max_prompt_tokens={prompt}",
         f"sampling.completions={completions}", f"sampling.max_tokens={longest}"],
        environment=False,
    )  # fmt: skip
    config, found = learner.model(run)
    layout = Layout(
        prompt=prompt, completions=completions, longest=longest, groups=1,
        budget=prompt + completions * longest, share_prompt=True,
    )  # fmt: skip
    batch = layout.largest()
    tokens, predicted = batch.tokens_BL.numel(), len(batch.target_T)
    head = predicted * found.vocabulary * found.hidden
    logits = LOGITS * head
    linear = tokens * found.layers * matrices(config)
    pairs = spent_pairs(layout, blockwise=model == LARGE)
    needed_pairs = pieces.needed(batch.spans)
    each = 12 * config.num_attention_heads * width(config) * found.layers
    plain, again = (layers_flops(config, found.layers, batch, again) for again in (False, True))
    planned = learner.rank(run, gpu=True)
    needed_rest = NEEDED * (linear + head)
    rest = plain + NEEDED * head
    return Count(
        shape=f"{prompt} + {completions} x {longest}", model=model,
        attention=pairs / needed_pairs,
        rest=rest / needed_rest, logits=(rest + logits) / needed_rest,
        needed=needed_rest + each * needed_pairs,
        spent=rest + logits + each * pairs,
        # Its forward again: a third of what attention took.
        spent_again=again + NEEDED * head + logits + each * pairs * 4 // 3,
        kept=planned.kept, peak=planned.peak, tokens=planned.tokens, ranks=ranks,
    )  # fmt: skip


def spent_pairs(layout: Layout, *, blockwise: bool) -> int:
    """Pairs of tokens whose score is computed: by a block mask's count of blocks, as on a GPU, or
    in pieces, as on a CPU.
    """
    spans = layout.largest().spans
    if not blockwise:
        return pieces.cut(spans, causal_mask_function, torch.float32, torch.device("cpu")).spent
    _, some_NN = blocks.seen(spans, causal_mask_function)
    return int(some_NN.sum()) * blocks.BLOCK**2


def layers_flops(config: Any, layers: int, batch: Any, again: bool) -> int:
    """Of linear layers, by torch's counter on few of them."""
    few, more = (
        trace.flops(shape.with_layers(config, n), batch, recomputed=again) for n in (FEW, FEW + 1)
    )
    return few + (layers - FEW) * (more - few)


def matrices(config: Any) -> int:
    """Weights of one layer's linear maps."""
    one = shape.of(shape.with_layers(config, 1), "a layer")
    return sum(
        given[0] * given[1]
        for name, given in one.weights.items()
        if len(given) == 2 and ".layers.0." in name
    )


def width(config: Any) -> int:
    """Numbers of an attention head."""
    found: int = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return found


def table(found: Sequence[Count]) -> list[str]:
    """For a person."""
    head = (
        f"{'group':18} {'model':26} {'attention':>9} {'rest':>6} {'logits again':>12} "
        f"{'needed TFLOP':>13} {'spent':>9} {'again':>9} {'kept GiB':>9} {'peak GiB':>9}"
    )
    return [head] + [
        f"{c.shape:18} {c.model:26} {c.attention:9.3f} {c.rest:6.3f} {c.logits:12.3f} "
        f"{c.needed / 1e12:13.2f} {c.spent / 1e12:9.2f} {c.spent_again / 1e12:9.2f} "
        f"{c.kept / 2**30:9.2f} {c.peak / 2**30:9.2f}"
        for c in found
    ]
