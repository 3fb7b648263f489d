"""A model's weights and its key-value cache, counted from its configuration alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sppo import families
from sppo.errors import ConfigError
from sppo.families import Family
from sppo.learner import adapters
from sppo.learner.adapters import Adapters
from sppo.learner.layers import decoder_layers
from sppo.learner.model import trunk
from sppo.learner.skeleton import skeleton
from sppo.plan import uncounted
from sppo.plan.uncounted import UncountedError

ATTENDING = frozenset(
    {"full_attention", "sliding_attention", "chunked_attention", "attention", "hybrid"}
)


class Part(NamedTuple):
    """Parameters of a part of a model."""

    all: int
    trained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model's configuration comes to."""

    family: Family
    weights: Mapping[str, tuple[int, ...]]
    """Shape of each parameter by name, tied ones once; without adapters."""
    trained: Mapping[str, tuple[int, ...]]
    """The same of what is trained: all of them, or adapters."""
    layer: Part
    """The largest decoder layer."""
    root: Part
    """What is outside of decoder layers: embedding, last norm, head."""
    head: Part
    """A head of its own; nothing where it is the embedding."""
    vocabulary: int
    hidden: int
    layers: int
    cached: int
    """Numbers that a key-value cache holds for each token, in all layers."""
    kv_heads: int
    kinds: tuple[int, ...]
    """Of each decoder layer: layers of the same kind and shapes have the same number."""

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return sum(map(math.prod, self.weights.values()))

    @property
    def adapted(self) -> bool:
        """Whether adapters alone are trained."""
        return not self.trained.keys() <= self.weights.keys()


def rows(weights: Mapping[str, tuple[int, ...]], ranks: int) -> int:
    """Parameters of rank 0 of so many, which has the most: each weight is cut along its first
    dimension.
    """
    return sum(
        math.prod(shape[1:]) * -(-shape[0] // ranks) if shape else 1 for shape in weights.values()
    )


def of(config: Any, where: str, adapted: Adapters | None = None) -> Shape:
    """Of a Transformers configuration. Raises ConfigError as `families.of` and `adapters.inject`
    do, UncountedError for a model that cannot be made of it or has no list of decoder layers.
    """
    family = families.of(config, where)
    with uncounted.told(config):
        module = skeleton(config, family)
    weights = {name: tuple(p.shape) for name, p in module.named_parameters()}
    layers = _layers(module)
    kinds = [
        (kind, tuple((name, p.shape) for name, p in layer.named_parameters()))
        for kind, layer in zip(_kinds(config, len(layers)), layers, strict=True)
    ]
    if adapted:
        adapters.inject(module, adapted, where)
    parts, whole = [_part(layer) for layer in layers], _part(module)
    head = module.get_output_embeddings()
    own = head.weight is not module.get_input_embeddings().weight
    cached, heads = _cache(config, config.num_hidden_layers)
    return Shape(
        family=family, weights=weights,
        trained={n: tuple(p.shape) for n, p in module.named_parameters() if p.requires_grad},
        layer=max(parts),
        root=Part(
            whole.all - sum(part.all for part in parts),
            whole.trained - sum(part.trained for part in parts),
        ),
        head=_part(head) if own else Part(0, 0),
        vocabulary=int(head.weight.shape[0]), hidden=int(head.weight.shape[1]),
        layers=len(parts), cached=cached, kv_heads=heads, kinds=tuple(map(kinds.index, kinds)),
    )  # fmt: skip


def _layers(module: Any) -> Any:
    try:
        return decoder_layers(module, trunk(module), setting="another model")
    except ConfigError as error:
        raise UncountedError(str(error)) from error


def _part(module: Any) -> Part:
    parameters = list(module.parameters())  # shared ones once
    return Part(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
    )


def with_layers(config: Any, layers: int) -> Any:
    """The same configuration with so many decoder layers; as it is where stacks of them are run
    several times.
    """
    name = "num_hidden_layers"
    if getattr(config, "num_layers", None) not in (None, config.num_hidden_layers):
        name = "num_layers"  # LongCat's attend twice, and count so
    if layers == getattr(config, name) or hasattr(config, "num_layers_per_stack"):
        return config
    cut = copy.deepcopy(config)
    setattr(cut, name, layers)
    if vars(cut).get("layer_types"):  # elsewhere it follows from the number of layers
        cut.layer_types = list(cut.layer_types)[:layers]
    return cut


def _kinds(config: Any, layers: int) -> list[str]:
    return list(getattr(config, "layer_types", None) or ["attention"] * layers)


def _cache(config: Any, layers: int) -> tuple[int, int]:
    """Numbers for each token, and heads that tensor parallelism can share out."""
    kinds = _kinds(config, layers)
    if rank := getattr(config, "kv_lora_rank", None):  # latent attention: one vector for all heads
        return sum(kind in ATTENDING for kind in kinds) * (rank + config.qk_rope_head_dim), 1
    if not getattr(config, "num_attention_heads", 0):  # recurrent layers alone
        return 0, 1
    each = getattr(config, "per_layer_config", None) or [config] * layers
    own = [_heads(layer) for kind, layer in zip(kinds, each, strict=True) if kind in ATTENDING]
    return sum(2 * heads * width for heads, width in own), min((n for n, _ in own), default=1)


def _heads(config: Any) -> tuple[int, int]:
    """Heads of keys, and the width of each."""
    queries = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or queries
    return heads, getattr(config, "head_dim", None) or config.hidden_size // queries
