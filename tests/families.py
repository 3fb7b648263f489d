"""Tiny models of every family, and how far learner and engines are from the model's own forward, in
nats.

The reference is plain Transformers with eager attention, float32, one completion at a time. Weights
are random and large enough that attention, windows and caps matter; prompt and completions are
longer than the windows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo import families
from sppo.errors import ConfigError
from sppo.learner import batching
from sppo.learner.model import Logprobs, Policy
from sppo.types import Completion, Group, SamplingParams, Version
from tests.makers import completion, run_config, tiny_tokenizer

VOCABULARY = 97
WINDOW = 12
PROMPT, LENGTHS = 24, (9, 20, 5)
VERSION = Version(epoch="e", n=0)

_SMALL = {
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_size": 128, "n_embd": 128, "d_model": 128, "word_embed_proj_dim": 128,
    "lru_width": 128, "block_dim": 128,
    "intermediate_size": 96, "ffn_dim": 96, "n_inner": 96, "ffn_hidden_size": 96,
    "intermediate_size_mlp": 96,
    "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "global_head_dim": 32, "query_pre_attn_scalar": 32, "rotary_dim": 8,
    "max_position_embeddings": 256, "n_positions": 256, "n_ctx": 256, "max_seq_len": 256,
    "sliding_window": WINDOW, "attention_chunk_size": WINDOW, "window_size": WINDOW,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "moe_k": 2, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "zero_expert_num": 4,
    "moe_num_shared_experts": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "first_k_dense_replace": 1, "moe_layer_start_index": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16,
    "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_chunk_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 32,
    "mamba_d_ssm": 256,
    "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8, "num_heads": 8, "state_size": 8,
    "expand": 2,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "attention_hidden_size": 128, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
    "num_kv_shared_layers": 0,
}  # fmt: skip
_WINDOWED = ["sliding_attention", "full_attention"] * 2
_OWN: dict[str, dict[str, Any]] = {
    "gemma3_text": {"layer_types": _WINDOWED},
    "gemma3n_text": {"layer_types": _WINDOWED},
    "gemma2": {"attn_logit_softcapping": 0.5},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "falcon": {"ffn_hidden_size": 512},
    "lfm2": {"conv_dim": 128, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "zaya": {"num_experts_per_tok": 1},
}
"""Where a family wants something else than others do."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon, alibi": ("falcon", {"alibi": True}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}),
    "qwen3, window": ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
}
"""Settings of a configuration that change what is exact."""

SLOW = {"kimi_linear"}
LARGE = {"hy_v4"}
"""Families whose smallest model takes long, or whose sizes do not shrink together; measured by
hand.
"""


def tiny(name: str) -> Any:
    """The configuration of a small model of a family, or of a variant of one."""
    from transformers import CONFIG_MAPPING

    family, changes = VARIANTS.get(name, (name, {}))
    kind = CONFIG_MAPPING[family]
    default = kind()
    known = set(default.to_dict()) | set(getattr(default, "attribute_map", {}))
    values = {key: value for key, value in _SMALL.items() if key in known}
    if "kv_lora_rank" in known:  # latent attention: heads have parts of unequal sizes
        values.pop("head_dim", None)
        values["num_key_value_heads"] = 4
    return kind(**values | _OWN.get(family, {}) | changes)


def save(name: str, folder: Path, *, lively: bool = True) -> str:
    """A small model and a tokenizer; lively weights show every difference, and rounding too."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny(name), attn_implementation="eager")
    with torch.no_grad():
        for part, p in model.named_parameters():
            if not lively:
                p.mul_(2.0 if p.ndim >= 2 else 1.0)
            elif p.ndim >= 2:
                p.mul_(6.0 if any(k in part for k in ("q_proj", "k_proj", "qkv", "query")) else 3.0)
            elif "bias" in part or "sink" in part:
                p.add_(torch.randn_like(p) * 0.3)
    model.save_pretrained(str(folder))
    tiny_tokenizer(folder, vocabulary=VOCABULARY - 1)  # some classes add a token of their own
    return str(folder)


def group(prompt: int = PROMPT, lengths: tuple[int, ...] = LENGTHS, number: int = 0) -> Group:
    """One prompt and completions of unequal lengths, of random tokens."""
    rng = np.random.default_rng(number)
    return Group(
        gid=f"g{number}",
        uid=f"train-{number:09}",
        stream="train",
        prompt_ids=rng.integers(3, VOCABULARY, prompt).astype(np.int32),
        completions=tuple(
            completion(rng.integers(3, VOCABULARY, n).tolist(), version=VERSION) for n in lengths
        ),
        rewards=np.arange(len(lengths), dtype=np.float32),
        generator="g",
    )


def several() -> list[Group]:
    """Groups that differ in everything, with a completion of one token."""
    return [group(), group(5, (3, 1), 1), group(PROMPT + 9, (14,), 2)]


def batch(*groups: Group, rows: families.Rows) -> batching.MicroBatch:
    """Whole groups as one micro-batch."""
    parts = [batching.Part(i, 0, len(found.completions)) for i, found in enumerate(groups)]
    return batching.collate(groups, parts, rows=rows, device="cpu")


def plain(model: Any, *groups: Group) -> Tensor:
    """Log-probs of the completions' tokens by the model's own forward, each completion alone."""
    parts = []
    for found, one in [(group, one) for group in groups for one in group.completions]:
        ids = torch.tensor(np.concatenate([found.prompt_ids, one.token_ids]).astype(np.int64))[None]
        logprobs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        at = len(found.prompt_ids)
        parts.append(logprobs[at - 1 : -1].gather(-1, ids[0, at:, None])[:, 0])
    return torch.cat(parts)


def load(path: str) -> Any:
    """The model as a reference: eager attention, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def learner(path: str) -> Policy:
    """The learner's model, float32."""
    return Policy(path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32)


class Plain(Policy):
    """Plain Transformers in the learner's place: eager attention, each completion alone."""

    def __init__(self, path: str, *, temperature: float) -> None:
        super().__init__(
            path, device="cpu", logprobs=Logprobs(temperature=temperature), compute=torch.float32
        )
        self.module, self._temperature = load(path), temperature
        self.master = dict(self.module.named_parameters())

    def logprobs(
        self, batch: batching.MicroBatch, *, entropy: bool = False, sampled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """[T] from the logits of the whole vocabulary."""
        logprobs, entropies = [torch.zeros(0)], [torch.zeros(0)]
        target = iter(batch.target_T.split(batch.cu_seqlens.diff().tolist()))
        for span in batch.spans:
            prompt_ids = batch.tokens_BL[span.row, span.start : span.start + span.prompt]
            for _ in span.fed:
                one = next(target)
                ids = torch.cat([prompt_ids, one])[None]
                logits = self.module(input_ids=ids, use_cache=False).logits[0].float()
                log_TV = (logits[span.prompt - 1 : -1] / self._temperature).log_softmax(-1)
                logprobs.append(log_TV.gather(-1, one[:, None])[:, 0])
                entropies.append(-(log_TV.exp() * log_TV).sum(-1))
        return torch.cat(logprobs), torch.cat(entropies)


@dataclass(frozen=True)
class Gap:
    """Largest differences from the reference."""

    logprobs: float
    """In nats, over the log-probs' standard deviation where that is above 1."""
    gradients: float
    """Of a weighted sum of log-probs, over the largest entry of each weight's gradient."""


def learner_gap(path: str) -> Gap:
    """The learner's log-probs of several groups and the gradient of every weight, against the
    reference.
    """
    groups = several()
    policy, reference = learner(path), load(path)
    own_T, _ = policy.logprobs(batch(*groups, rows=policy.family.rows(policy.family.shares)))
    true_T = plain(reference, *groups)
    weights_T = torch.linspace(-1, 1, len(true_T))
    (own_T * weights_T).sum().backward()  # type: ignore[no-untyped-call]
    (true_T * weights_T).sum().backward()  # type: ignore[no-untyped-call]
    gap = float((own_T - true_T).detach().abs().max()) / max(1.0, float(true_T.detach().std()))
    gradients = [0.0]
    for name, p in reference.named_parameters():
        if p.grad is not None and float(p.grad.abs().max()) > 1e-5:
            own = policy.master[name].grad
            assert own is not None, name
            gradients.append(float((own - p.grad).abs().max() / p.grad.abs().max()))
    return Gap(gap, max(gradients))


def engine_gap(path: str, engine_class: Any, **generator: Any) -> float:
    """An engine's log-probs of what it samples after a sync of moved weights, against the
    reference: the largest
    """
    run = run_config(
        task={"max_prompt_tokens": 64},
        sampling={"max_tokens": 24, "completions": 3},
        generator={"max_groups": 4, "threads": 1, **generator},
        compute="bfloat16" if families.read(path).name in families.BF16_ON_CPU else "float32",
    )
    return asyncio.run(_engine_gap(run, path, engine_class))


async def _engine_gap(run: Any, path: str, engine_class: Any) -> float:
    policy, reference = learner(path), load(path)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in reference.named_parameters():
            p.mul_(1 + 0.3 * torch.rand_like(p))
            policy.master[name].copy_(p)
    engine = engine_class(run, path, transport="gloo", on_cpu=True)
    await engine.start()
    try:
        await publish(policy, engine)
        sampling = SamplingParams(completions=3, temperature=1.0, max_tokens=24, seed=0)
        prompts = [group().prompt_ids[:n].tolist() for n in (PROMPT, 5)]
        answers = await asyncio.gather(
            *(engine.sample(p, sampling, f"r{i}") for i, p in enumerate(prompts))
        )
    finally:
        await engine.close()
    gaps = [
        sampled_gap(reference, p, c) for p, made in zip(prompts, answers, strict=True) for c in made
    ]
    return max(gaps)


def sampled_gap(
    reference: Any, prompt: list[int], made: Completion, start: int = 0, end: int | None = None
) -> float:
    """Largest difference of an engine's log-probs from the reference, tokens `start` to `end`."""
    return float(sampled_gaps(reference, prompt, made)[start:end].max())


@torch.no_grad()
def sampled_gaps(reference: Any, prompt: list[int], made: Completion) -> Tensor:
    """[T] of each token."""
    ids = torch.tensor([*prompt, *made.token_ids.tolist()])[None]
    logprobs = reference(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    true = logprobs[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]
    return (true - torch.from_numpy(made.behavior_logprobs)).abs()


async def publish(policy: Policy, engine: Any, version: Version = VERSION) -> None:
    """One weight sync over gloo, in this process."""
    import threading

    from sppo.weights.gloo import GlooSender

    sender = GlooSender("127.0.0.1")
    update = sender.stage(policy.weights())
    join = sender.open(2, 60)
    sending = threading.Thread(target=sender.transfer(meet=True))
    sending.start()
    await engine.join_group(join | {"rank_offset": 1})
    await engine.load_weights(update, version)
    sending.join()
    sender.close()


def measured() -> list[str]:
    """Families and variants that the quick tests measure."""
    return sorted((families.SHARED | families.SEPARATE) - SLOW - LARGE) + sorted(VARIANTS)


# the page -----------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
VLLM = Path(__file__).parent / "families_vllm.json"
"""What the last `make families` measured of vLLM on a CPU: a family's gap in nats, or how it
failed.
"""

_HEAD = """# Model families

A test writes this page (`tests/integration/test_families.py` fails when it is out of date; `make
families` measures everything and writes it). Measured on tiny models with random weights, in
float32, on a CPU, against plain Transformers with eager attention, one completion at a time;
prompts are longer than the sliding windows.

- **learner**: log-probs within 2e-5 nats and the gradient of every weight within 1e-3 of the
  reference, with several groups in a micro-batch. *shared*: a prompt is run once for all its
  completions (`learner.share_prompt`); *one a row*: the learner turns that off itself, since
  recurrent layers, convolutions or positions counted along the row would make it inexact. Measured
  by `pytest tests/integration/test_families.py`.
- **attention**: *packed* is the learner's own: one row holds all groups of a micro-batch without
  padding, and no mask of all its pairs of tokens is made; windows, caps and sinks are the family's.
  *sdpa* and *eager* are Transformers', with a dense mask; a row then holds one group.
- **transformers**, **vllm**: after a weight sync, the log-probs of what the engine samples are
  within {engine} nats of the reference. *no*: they are not, or the engine does not run the family;
  `sppo-cli up` refuses the pair before anything starts. A dash: not measured; the parity check of a
  run decides. Measured by `make families`; the test measures a choice of them again.

A family that is not in the table is refused by name. Parameters travel under the names of the
model's files, mixtures of experts included; where Transformers names them otherwise than the files
do, `learner.ranks` must be 1. Attention is *packed* where prompts are shared and the family's
layers take an implementation and its mask by name, and *eager* where `sdpa` would leave out a cap,
sinks or ALiBi. Contexts above the original length of longrope are refused: its factors change with
what is read.

| family | learner | attention | transformers | vllm (CPU) |
|---|---|---|---|---|
"""
_FOOT = """
Looked at and refused: {refused}; encoders with a decoder (T5, BART); models with parts for images
(their text-only versions, where there is one, are in the table).
"""
LEARNER_NATS, LEARNER_GRADIENTS, ENGINE_NATS, BF16_NATS = 2e-5, 1e-3, 1e-3, 0.5


def page() -> str:
    """The page as the tables of `sppo.families` and the measurements of vLLM have it."""
    vllm = json.loads(VLLM.read_text())
    rows = [_row(name, vllm) for name in sorted(families.SHARED | families.SEPARATE)]
    refused = ", ".join(f"`{name}` ({reason})" for name, reason in sorted(families.REFUSED.items()))
    return _HEAD.format(engine=ENGINE_NATS) + "\n".join(rows) + "\n" + _FOOT.format(refused=refused)


def _row(name: str, vllm: dict[str, float | str]) -> str:
    family = families.of(tiny(name), name)
    measured = vllm.get(name)
    cells = [
        f"`{name}`",
        "shared" if family.shares else "one a row",
        family.attention,
        "yes" if _accepted(family, "transformers") else "no",
        _vllm_cell(family, measured),
    ]
    return f"| {' | '.join(cells)} |"


def _vllm_cell(family: families.Family, measured: float | str | None) -> str:
    if not _accepted(family, "vllm", on_cpu=True):
        return "no"
    if measured is None:
        return "–"
    in_bf16 = family.name in families.BF16_ON_CPU
    right = isinstance(measured, float) and measured < (BF16_NATS if in_bf16 else ENGINE_NATS)
    return ("in bf16" if in_bf16 else "yes") if right else "no"


def _accepted(family: families.Family, engine: str, *, on_cpu: bool = False) -> bool:
    try:
        families.check_engine(family, engine, family.name, on_cpu=on_cpu)
    except ConfigError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """Measure families (all, or those named), with `--vllm` that engine too; write the page."""
    from sppo.generators.transformers_engine import TransformersEngine
    from sppo.generators.vllm_engine import VllmEngine

    with_vllm = "--vllm" in arguments
    names = [a for a in arguments if a != "--vllm"] or measured()
    vllm: dict[str, float | str] = json.loads(VLLM.read_text()) if VLLM.exists() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = save(name, Path(folder))
            gap, family = learner_gap(path), families.read(path)
            wrong = gap.logprobs > LEARNER_NATS or gap.gradients > LEARNER_GRADIENTS
            paged = _outcome(path, TransformersEngine, engine="transformers")
            wrong |= (isinstance(paged, float) and paged < ENGINE_NATS) != _accepted(
                family, "transformers"
            )
            if with_vllm:
                vllm[name] = _outcome(path, VllmEngine)
                VLLM.write_text(json.dumps(dict(sorted(vllm.items())), indent=1) + "\n")
            print(
                f"{name:22} {gap} transformers {paged} vllm {vllm.get(name)}" + " WRONG" * wrong,
                flush=True,
            )
    PAGE.write_text(page())


def _outcome(path: str, engine_class: Any, **generator: Any) -> float | str:
    try:
        return engine_gap(path, engine_class, **generator)
    except Exception as error:  # noqa: BLE001 - whatever an engine raises for a family it does not run
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
