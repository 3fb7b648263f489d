"""Which model families the learner computes exactly, and how: decided by name, before any weight is
read.

Exact means: each token's log-prob is the one that the model's own forward gives for that completion
alone. How that is reached differs. Where attention is all that joins tokens, a prompt is shared in
a row (`sppo.learner.masks`), which holds several groups unless attention needs a dense mask;
recurrent and convolutional layers carry siblings into each other, and ALiBi and some learned
positions count tokens of the row, so those take one row a completion. The names below are those for
which `tests/families.py` measured this; a family that is not among them is refused.
`docs/families.md` is their list.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sppo.config import RunConfig
from sppo.errors import ConfigError

log = logging.getLogger(__name__)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHARED = _names(
    """
    afmoe apertus arcee aria_text axk1 biogpt bitnet codegen cohere cohere2 cohere2_moe ctrl cwm
    deepseek_v2 deepseek_v3 diffllama doge dots1 ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon
    flex_olmo gemma gemma2 gemma3_text gemma3n_text gemma4_text glm glm4 glm4_moe glm4_moe_lite gpt2
    gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe
    granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3
    hyperclovax jais2 jetmoe laguna llama llama4_text longcat_flash mellum mimo_v2_flash minicpm3
    minimax_m2 ministral ministral3 mistral mixtral nanochat nemotron olmo olmo2 olmo3 olmoe opt
    persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm
    starcoder2 vaultgemma xglm youtu
    """
)
"""Attention alone joins tokens, and its masks and positions are those of the tokens: a prompt is
shared in a row.
"""

SEPARATE = _names(
    """
    bamba bloom deepseek_v4 falcon_h1 falcon_mamba gpt_neo granitemoehybrid hy_v4 jamba kimi_linear
    lfm2 lfm2_moe mamba mamba2 minimax minimax_m3_vl_text mpt nemotron_h olmo_hybrid openai-gpt
    qwen3_5_moe_text qwen3_5_text qwen3_next rwkv zaya
    """
)
"""Recurrent or convolutional layers, keys chosen by score, or positions counted along the row: one
row a completion.
"""

REFUSED = {
    "inkling_text": "its logits are not those of a linear head",
    "modernbert-decoder": "its logits are not those of a linear head",
    "recurrent_gemma": "its log-probs depend on what else is in the batch",
    "xlstm": "its log-probs depend on what else is in the batch",
}
"""Looked at, and not exact."""

UNPAGED = _names(
    """
    axk1 codegen deepseek_v2 deepseek_v3 diffllama doge falcon gemma4_text glm4_moe_lite gpt_bigcode
    gpt_neox_japanese gptj hrm_text jetmoe llama4_text longcat_flash mimo_v2_flash minicpm3 nemotron
    phimoe stablelm xglm youtu
    """
)
"""Families of `SHARED` that Transformers' continuous batching computes otherwise, or not at all."""

UNSYNCED = _names("gpt_oss")
"""Families into which vLLM 0.32 does not load weights again, experts above all."""

NO_CPU = _names("falcon_mamba jamba mamba")
"""Families that vLLM 0.32 does not run on a CPU: it has no selective scan there."""

BF16_ON_CPU = _names("olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next")
"""Families that vLLM 0.32 runs on a CPU in bf16 only: gated delta rules."""

UNADAPTED = _names("falcon_h1 falcon_mamba jamba longcat_flash mamba mamba2 nemotron_h")
"""Families some of whose linear layers are not called: their weights are read, so an adapter beside
one would do nothing.
"""

UNPACKED = _names("doge")
"""Families of `SHARED` whose layers change the mask that they are given: it must be a tensor."""

Rows = Literal["packed", "group", "completion"]
"""What a row holds: all groups of a micro-batch, one group, or one completion with its prompt."""

_KINDS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a model's log-probs are computed exactly."""

    name: str
    """`model_type` of its configuration."""
    shares: bool
    """Whether a prompt may be shared in a row."""
    attention: Literal["packed", "sdpa", "eager"]
    """The implementation of attention that computes what the model defines: our own
    (`sppo.learner.attention`), or one of Transformers' with a dense mask.
    """

    def rows(self, share_prompt: bool) -> Rows:
        """What a row holds, with prompts shared or not."""
        if not share_prompt:
            return "completion"
        return "packed" if self.attention == "packed" else "group"


def of(config: Any, where: str) -> Family:
    """The family of a Transformers configuration; `where` is the model's name in messages.

    Raises ConfigError for one that is refused, with the reason.
    """
    name = config.model_type
    if config.is_encoder_decoder:
        raise ConfigError(
            f"model.name = {where!r}: {name!r} is an encoder with a decoder; use a decoder-only "
            f"model"
        )
    if config.get_text_config() is not config:
        raise ConfigError(
            f"model.name = {where!r}: {name!r} is more than a language model (it has parts for "
            f"images)"
        )
    if name in REFUSED:
        raise ConfigError(
            f"model.name = {where!r}: the family {name!r} is refused: {REFUSED[name]}"
        )
    if name not in SHARED | SEPARATE:
        raise ConfigError(
            f"model.name = {where!r}: the family {name!r} is not known to give exact log-probs; "
            "docs/families.md lists those that are"
        )
    shares = (
        name in SHARED
        and not getattr(config, "alibi", False)
        and _KINDS.issuperset(_layer_types(config))
    )
    return Family(name=name, shares=shares, attention=_attention(config, shares))


def read(path: str, where: str = "") -> Family:
    """The family of a folder in Hugging Face format. Raises ConfigError as `of` does."""
    return of(read_config(path, where), where or path)


def read_config(path: str, where: str = "") -> Any:
    """The configuration of such a folder. Raises ConfigError for one that cannot be read or whose
    type is unknown.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model.name = {where or path!r}: {Path(path) / 'config.json'}: {reason[:300]}"
        ) from error


def check_engine(
    family: Family,
    engine: str,
    where: str,
    *,
    on_cpu: bool = False,
    number_format: str = "bfloat16",
) -> None:
    """Raises ConfigError for an engine that does not compute this family right, with what does.

    `on_cpu` and `number_format` (a `compute` that is decided) say how the engine will run.
    """
    if engine == "transformers" and (family.name in UNPAGED or not family.shares):
        raise ConfigError(
            f"generator.engine = 'transformers': its continuous batching does not compute "
            f"{family.name!r} "
            f"(model.name = {where!r}) exactly; use generator.engine = 'vllm'"
        )
    if engine == "vllm" and family.name in UNSYNCED:
        raise ConfigError(
            f"generator.engine = 'vllm' does not take new weights of {family.name!r} (model.name = "
            f"{where!r}); "
            "use generator.engine = 'transformers'"
        )
    if engine == "vllm" and on_cpu and family.name in NO_CPU:
        raise ConfigError(
            f"generator.engine = 'vllm' does not run {family.name!r} (model.name = {where!r}) on a "
            f"CPU; it needs a GPU"
        )
    if engine == "vllm" and on_cpu and number_format == "float32" and family.name in BF16_ON_CPU:
        raise ConfigError(
            f"compute = 'float32': on a CPU generator.engine = 'vllm' runs {family.name!r} "
            f"(model.name = {where!r}) in "
            "bf16 only; use compute = 'bfloat16'"
        )


def settled(config: RunConfig, path: str) -> RunConfig:
    """The run's settings with `learner.share_prompt` off where the family's rows cannot be shared.

    Says so, and where attention needs a dense mask.
    """
    if not config.learner.share_prompt:
        return config
    family = read(path, config.model.name)
    if family.shares:
        if family.attention != "packed":
            log.info("attention of %s needs a dense mask: one row a group", family.name)
        return config
    log.info("learner.share_prompt is off: %s takes one row a completion", family.name)
    return config.model_copy(
        update={"learner": config.learner.model_copy(update={"share_prompt": False})}
    )


def _attention(config: Any, shares: bool) -> Literal["packed", "sdpa", "eager"]:
    """Ours where layers hand the mask that they are given to an implementation by its name."""
    if shares and by_name(config) and config.model_type not in UNPACKED:
        return "packed"
    return plain_attention(config)


def by_name(config: Any) -> bool:
    """Whether the model's layers take an implementation of attention by its name."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM._model_mapping[type(config)]
    return bool(model._supports_attention_backend or model._supports_flex_attn)


def plain_attention(config: Any) -> Literal["sdpa", "eager"]:
    """Transformers' own: `eager` where `sdpa` would leave out a cap of the attention logits or a
    bias, or a family has no such implementation.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM._model_mapping[type(config)]
    capped = getattr(config, "attn_logit_softcapping", None) or getattr(config, "alibi", False)
    return "sdpa" if model._supports_sdpa and not capped else "eager"


def _layer_types(config: Any) -> list[str]:
    return list(getattr(config, "layer_types", None) or ())
