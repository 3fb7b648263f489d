"""Names that are no settings: old ones, with what they are now, and those that a sampler has but a
run may not. They are errors that say so, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sppo.errors import ConfigError

_OBJECTIVE = (
    *("eta", "target", "link", "link_temperature", "select", "label", "anchor", "iteration_steps"),
    *("weight", "weight_cap", "length_normalize", "kl_coef", "entropy_coef"),
)
_OPTIMIZER = ("lr", "warmup_steps", "betas", "weight_decay", "max_grad_norm")

NOW = {f"learner.{name}": f"objective.{name}" for name in _OBJECTIVE} | {
    f"learner.{name}": f"optimizer.{name}" for name in _OPTIMIZER
}
"""Old name to new name."""

RENAMED = {old: f"now {new}" for old, new in NOW.items()} | {
    "generator.enforce_eager": "now generator.vllm.enforce_eager; by itself true on a CPU, false "
    "on GPUs",
    "broker.renew_s": "gone: it is a quarter of broker.lease_s",
    "eval.timeout_s": "gone: an evaluation ends when no group comes for learner.batch_timeout_s",
    "launch.hang_timeout_s": "gone: it is five of weights.phase_timeout_s, at least 90 s",
    "sampling.top_p": "gone: it had to be 1, completions are drawn from the whole distribution",
}
"""Old name to what is to be said of it."""

_TRUNCATE = ("top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "tfs", "bad_words")
_BEND = (
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "logit_bias", "logits_processors", "allowed_token_ids"),
    *("min_tokens", "ignore_eos", "guided_decoding", "structured_outputs"),
)
REFUSED = {
    f"sampling.{name}": f"{does} the distribution that the off-policy correction divides by, so "
    "engines do not take it; leave it out"
    for names, does in ((_TRUNCATE, "truncates"), (_BEND, "changes"))
    for name in names
}
"""A sampler's options that would make the behaviour policy another distribution than the one whose
log-probs are recorded (docs/objective.md), with the reason.
"""


SHOWN = 8


def refuse(layers: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Raises ConfigError with what is to be said of every such name in these (source, values)."""
    found = []
    for source, values in layers:
        for name, value in flatten(values).items():
            key = ".".join(name.split(".")[:2])  # a table is one setting
            if key in RENAMED:
                found.append(f"{key}: {RENAMED[key]} (from {source})")
            if key in REFUSED:
                found.append(f"{key} = {value!r}: {REFUSED[key]} (from {source})")
    if len(found) > SHOWN:
        found[SHOWN:] = [f"and {len(found) - SHOWN} more (CHANGELOG.md lists them)"]
    if found:
        raise ConfigError("; ".join(found))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"learner": {"steps": 1}}` as `{"learner.steps": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
