"""[generator.vllm]: arguments of vLLM's engine by their own names, and those that a run may not
give: what other settings say, and what would sample from another distribution than the one whose
log-probs are recorded (docs/objective.md). vLLM judges the rest itself, before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ELSEWHERE = {
    "model": "model.name", "tokenizer": "model.name", "revision": "model.revision",
    "code_revision": "model.revision", "tokenizer_revision": "model.revision",
    "dtype": "compute", "seed": "seed",
    "max_model_len": "task.max_prompt_tokens and sampling.max_tokens",
    "max_num_seqs": "generator.max_groups and sampling.completions",
    "max_num_active_seqs": "generator.max_groups and sampling.completions",
    "tensor_parallel_size": "generator.tensor_parallel",
    "gpu_memory_utilization": "generator.gpu_memory_utilization",
    "weight_transfer_config": "weights.transport",
    "enable_sleep_mode": "launch.take_turns",
}  # fmt: skip
"""Argument, and the setting that says it."""

OURS = frozenset(
    {"worker_extension_cls", "worker_cls", "scheduler_cls", "skip_tokenizer_init", "runner",
     "convert", "trust_remote_code", "load_format", "disable_log_stats", "tokens_only",
     "enable_return_routed_experts", "device_ids", "node_rank", "master_addr", "master_port",
     "data_parallel_rank", "data_parallel_start_rank", "data_parallel_address",
     "data_parallel_rpc_port", "data_parallel_hybrid_lb", "data_parallel_external_lb",
     "data_parallel_multi_port_external_lb", "shutdown_timeout", "hf_token",
     "enable_trace_replay", "return_sampling_mask"}
)  # fmt: skip
"""Set by the generator, or of no use in it."""

BENT = {
    "logits_processors": "changes the logits that are sampled from",
    "override_generation_config": "brings sampling defaults such as top_p",
    "generation_config": "brings the model's own sampling defaults such as top_p",
    "logprobs_mode": "would record other log-probs than those of the distribution sampled from",
    "watermark_config": "marks text by bending the distribution",
    "diffusion_config": "does not sample token by token",
    "reasoning_config": "ends a train of thought by force",
    "hf_overrides": "makes another model than the one that is trained",
    "hf_config_path": "makes another model than the one that is trained",
    "model_class_overrides": "makes another model than the one that is trained",
    "model_weights": "loads other weights than those that are trained",
    "disable_sliding_window": "attends otherwise than the model that is trained",
    "enable_prompt_embeds": "lets prompts be no tokens",
    "spec_method": "give speculative_config",
    "spec_model": "give speculative_config",
    "spec_tokens": "give speculative_config",
}
"""Argument, and what it would do to the behaviour policy."""

NOT_YET = {
    "data_parallel_size_local": "the copies of an engine are on one machine",
    "data_parallel_backend": "the copies of an engine are on one machine",
    "nnodes": "where no machine has an engine's GPUs, Ray puts it on several (launch.ray_address)",
    "distributed_executor_backend": "the generator chooses: processes of its machine, or Ray where "
    "no machine has an engine's GPUs (launch.ray_address)",
}
"""Argument, and why it is not passed on."""

FACTORS = ("pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
"""Of an engine's devices, beside `generator.tensor_parallel`."""

EXACT_REJECTION = ("standard", "block")
"""Ways of rejecting guessed tokens that leave the distribution as it is."""


def check(given: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument that a run may not give."""
    for name, value in given.items():
        if name in ELSEWHERE:
            raise ValueError(f"{name} = {value!r}: set {ELSEWHERE[name]}")
        if name in OURS or name.startswith("_"):
            raise ValueError(f"{name} = {value!r}: the generator sets it itself; leave it out")
        if name in NOT_YET:
            raise ValueError(f"{name} = {value!r}: {NOT_YET[name]}")
        if name in BENT:
            raise ValueError(
                f"{name} = {value!r} {BENT[name]}: what was sampled must be what the learner "
                "corrects for; leave it out"
            )
        if name == "speculative_config":
            _speculation(value)
    _processes(given)


def processes(given: Mapping[str, Any]) -> int:
    """Devices of an engine for each of its tensor-parallel ranks."""
    found = 1
    for name in FACTORS:
        found *= int(given.get(name, 1))
    return found


def _processes(given: Mapping[str, Any]) -> None:
    for name in FACTORS:
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1024:
            raise ValueError(f"{name} = {value!r} must be a whole number from 1 to 1024")


def _speculation(value: Any) -> None:
    """Guessing leaves the distribution as it is where what is guessed wrongly is drawn again."""
    how = value.get("rejection_sample_method", "standard") if isinstance(value, dict) else None
    if how not in EXACT_REJECTION:
        raise ValueError(
            f"speculative_config = {value!r}: give a table whose rejection_sample_method is one of "
            f"{', '.join(EXACT_REJECTION)}; others accept tokens that the model would not sample"
        )
