"""The matrix products that an optimizer step cannot do without, bare: their seconds on this machine
in the run's number format.

Forward, and in the backward pass the gradients of input and weight, of every linear layer on every
useful token, and of the head on every predicted one; attention's useful products at the mean rate
of these. Gathering rows, norms, softmax, loss and optimizer cost nothing here.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sppo import compute, families, models
from sppo.config import RunConfig
from sppo.learner import batching
from sppo.learner.layers import decoder_layers
from sppo.learner.model import trunk
from sppo.learner.skeleton import skeleton
from sppo.types import Group

REPEATS = 3

Product = tuple[int, int, int]
"""Tokens, width in, width out."""


def seconds(config: RunConfig, groups: Sequence[Group]) -> float:
    """Of one optimizer step's products."""
    path, dtype = models.resolve(config.model), compute.dtype(config)
    module = skeleton(families.read_config(path), families.read(path))
    layers = decoder_layers(module, trunk(module), setting="another model")
    products: Counter[Product] = Counter()
    for tokens, predicted in fed(config, groups):
        for layer in layers.modules():
            if isinstance(layer, nn.Linear):
                products[tokens, layer.in_features, layer.out_features] += 1
        head = module.get_output_embeddings().weight
        products[predicted, head.shape[1], head.shape[0]] += 1
    took = sum(n * _bare(product, dtype) for product, n in products.items())
    flops = sum(n * 6 * math.prod(product) for product, n in products.items())
    return took * (1 + attention_flops(module.config, groups) / flops)


def fed(config: RunConfig, groups: Sequence[Group]) -> list[tuple[int, int]]:
    """(tokens, predicted tokens) of each micro-batch, without padding and prompts once."""
    found = []
    for parts in batching.plan(groups, config.learner.micro_batch_tokens, "packed"):
        members = [groups[p.group].only(range(p.start, p.stop)) for p in parts]
        tokens = sum(sum(batching.row_tokens(g, True)) for g in members)
        found.append((tokens, sum(len(c.token_ids) for g in members for c in g.completions)))
    return found


def attention_flops(config: Any, groups: Sequence[Group]) -> float:
    """Of queries with keys and probabilities with values, for the pairs that a mask lets through;
    twice as many again in the backward pass.
    """
    heads = config.num_attention_heads
    width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    pairs = 0
    for group in groups:
        prompt = len(group.prompt_ids)
        pairs += prompt * (prompt + 1) // 2
        for completion in group.completions:
            n = len(completion.token_ids) - 1
            pairs += n * prompt + n * (n + 1) // 2
    return 3.0 * 4 * pairs * int(heads * width * config.num_hidden_layers)


def _bare(product: Product, dtype: torch.dtype) -> float:
    """Median seconds of y = x Wᵀ, dx = dy W and dW = dyᵀ x."""
    tokens, inside, outside = product
    x, w, dy = (
        torch.randn(shape, dtype=dtype)
        for shape in ((tokens, inside), (outside, inside), (tokens, outside))
    )
    took = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        x @ w.T
        dy @ w
        dy.T @ x
        took.append(time.perf_counter() - started)
    return statistics.median(took[1:])
