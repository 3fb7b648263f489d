"""vLLM as a generator's engine. This module, `sppo.weights.nccl` and `sppo.weights.vllm_*` alone
import vLLM.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sppo import compute, models
from sppo.config import GeneratorConfig, RunConfig, cpu_threads
from sppo.errors import TransferAborted, WeightsMixed
from sppo.types import Completion, SamplingParams, Version, VersionSpan
from sppo.weights.protocol import unheard

log = logging.getLogger(__name__)

BATCHED_TOKENS, BATCHED_TOKENS_GPU = 2048, 8192
"""Of one step, at least: what vLLM takes by itself, and what its server takes on large GPUs."""

ALIVE_S = 1.0
"""How often an engine that does not answer is looked at."""

SHARED_UTILIZATION = 0.05
"""Of a GPU that is shared: vLLM asks whether so much is free, and then takes the cache's bytes."""

ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""By its full name: vLLM takes its short one, `uni`, for a wish that it may overrule on a CPU."""


class VllmEngine:
    """See `sppo.generators.engine.Engine`."""

    def __init__(
        self, config: RunConfig, model_path: str, *, transport: str, on_cpu: bool,
        spread: bool = False,
    ) -> None:  # fmt: skip
        """`spread`: Ray puts the ranks on several machines, in this process's placement group."""
        self._config = config
        self._spread = spread
        self._model_path = model_path
        self._transport = transport
        self._on_cpu = on_cpu
        self._engine: Any = None
        self._sampling: Any = None
        self._final_only: Any = None
        self._stop: tuple[int, ...] = ()
        self._version = "base"

    @property
    def world_size(self) -> int:
        """Ranks of the engine: each holds a part of the model and joins the weight transfer."""
        return self._config.generator.devices

    async def start(self) -> None:
        """Start vLLM's engine process and load the model."""
        set_environment(self._config, on_cpu=self._on_cpu, spread=self._spread)
        from vllm import SamplingParams as VllmSamplingParams
        from vllm.config.weight_transfer import WeightTransferConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM

        from sppo.weights import vllm_transfer

        vllm_transfer.register()
        self._stop = models.stop_ids(self._model_path, models.load_tokenizer(self._model_path))
        self._sampling, self._final_only = VllmSamplingParams, RequestOutputKind.FINAL_ONLY
        backend = vllm_transfer.BACKENDS[self._transport]
        arguments = engine_arguments(self._config, self._model_path, on_cpu=self._on_cpu)
        if self._spread:
            arguments["distributed_executor_backend"] = "ray"
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                **arguments, weight_transfer_config=WeightTransferConfig(backend=backend)
            )
        )
        if self.world_size > 1:
            hosts = await _ranks(self._engine, "sppo_host")
            log.info(
                "ranks of the engine: %s", ", ".join(f"{i} on {h}" for i, h in enumerate(hosts))
            )

    async def sample(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
    ) -> list[Completion]:
        """See `Engine.sample`."""
        params = self._sampling(
            n=sampling.completions,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=self._seed(sampling),
            stop_token_ids=list(self._stop),
            logprobs=0,  # the sampled token's own
            # With n > 1 partial outputs hold some of the completions only.
            output_kind=self._final_only,
        )
        final: Any = None
        # The salt keeps prefixes apart that different weights computed. Emptying the cache instead
        # would need every completion in flight to be computed again, or silently do nothing while
        # there is one.
        prompt = {"prompt_token_ids": list(prompt_ids), "cache_salt": self._version}
        async for output in self._engine.generate(prompt, params, request_id):
            final = output
        assert final is not None, "vLLM ended a request without an output"
        assert len(final.outputs) == sampling.completions, (
            "vLLM returned a partial set of completions"
        )
        return [_completion(output) for output in final.outputs]

    def _seed(self, sampling: SamplingParams) -> int | None:
        # On a CPU vLLM 0.32 ends with "CPU Generator does not use offset" when a seeded request is
        # prefilled in pieces.
        return None if self._on_cpu or sampling.temperature == 0 else sampling.seed

    async def pause(self) -> None:
        """Freeze completions in flight."""
        await self._engine.pause_generation(mode="keep", clear_cache=False)

    async def resume(self) -> None:
        """Go on sampling."""
        await self._engine.resume_generation()

    async def sleep(self) -> None:
        """Weights into host memory, and the cache away: by vLLM's sleep mode, which it has on GPUs
        alone. On a CPU what is there stays. Nothing may be in flight.
        """
        if not self._on_cpu:
            await self._engine.sleep(level=1)

    async def wake(self) -> None:
        """Back, with the weights of before."""
        if not self._on_cpu:
            await self._engine.wake_up()

    async def join_group(self, join: dict[str, Any]) -> None:
        """See `WeightTarget.join_group`."""
        if self._transport != "nccl":
            own = "auto" if self._spread else self._config.generator.host
            join = join | {"own_host": own}
        _check(await _ranks(self._engine, "sppo_join", join))

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = unheard
    ) -> None:
        """Receive and load; running completions go on under the new weights and carry one span
        more. Over gloo everything arrives first; otherwise each bucket is loaded as it comes.
        """
        call, loaded = partial(_ranks, self._engine), False
        counts = await call("sppo_begin", update)
        assert len(set(counts)) == 1, counts
        for _ in range(counts[0]):
            reasons = [reason for reason in await call("sppo_receive") if reason]
            if reasons and loaded:
                await call("sppo_undo")
                raise WeightsMixed(reasons[0])
            _check(reasons)
            if loaded := self._transport != "gloo":
                await call("sppo_load")
            moved()
        if not loaded:
            await call("sppo_load")
        await call("sppo_finish")
        await self.label(version)

    async def label(self, version: Version) -> None:
        """See `Engine.label`."""
        await self._engine.update_weight_version(str(version))
        self._version = str(version)

    async def ping(self) -> None:
        """See `Engine.ping`: answered by each process that steps the model, between two steps. Of
        one that dies meanwhile vLLM 0.32 lets the caller wait for ever.
        """
        asked = asyncio.ensure_future(self._engine.get_weight_version())
        try:
            while not asked.done():
                await asyncio.wait({asked}, timeout=ALIVE_S)
                if self._engine.errored:
                    raise self._engine.dead_error
            await asked
        finally:
            asked.cancel()

    async def weight_checksums(self) -> dict[str, str]:
        """vLLM's own digest of each loaded weight, to compare two engines."""
        found: list[dict[str, str]] = await self._engine.compute_weight_checksums()
        return {name: digest for rank in found for name, digest in rank.items()}

    async def close(self) -> None:
        """End vLLM's processes."""
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown)
            self._engine = None


def set_environment(config: RunConfig, *, on_cpu: bool, spread: bool = False) -> None:
    """What vLLM takes from the environment; before it is imported."""
    settings = config.generator
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Where an engine is on one machine it needs nothing beyond loopback.
    os.environ["VLLM_HOST_IP"] = settings.host if spread else "127.0.0.1"
    os.environ["VLLM_USE_RAY_V2_EXECUTOR_BACKEND"] = "1"  # the one whose ranks all answer
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    if on_cpu:
        threads = cpu_threads(settings.threads)
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would come before the setting
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads // settings.devices))
    else:
        # Whether there are GPUs has been asked in this process: a fork of it could not use one.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


def engine_arguments(config: RunConfig, path: str, *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's arguments for a run whose `compute` is decided, but for the weight transfer."""
    settings = config.generator
    at_once = settings.max_groups * config.sampling.completions
    return {
        "model": path,
        "dtype": str(compute.dtype(config)).removeprefix("torch."),
        "seed": config.seed,
        "max_model_len": config.task.max_prompt_tokens + config.sampling.max_tokens,
        "max_num_seqs": at_once,
        **_batched(at_once, on_cpu=on_cpu),
        "enforce_eager": on_cpu,  # on GPUs graphs are worth their start
        "logprobs_mode": "processed_logprobs",  # those of the distribution that is sampled from
        # The model's own sampling defaults must not truncate the distribution.
        "generation_config": "vllm",
        "disable_log_stats": True,
        "trust_remote_code": False,
        "tensor_parallel_size": settings.tensor_parallel,
        "distributed_executor_backend": _executor(settings, on_cpu=on_cpu),
        "worker_extension_cls": "sppo.weights.vllm_transfer.Steps",
        **_memory(config, on_cpu=on_cpu),
        **settings.vllm,
    }


def _executor(settings: GeneratorConfig, *, on_cpu: bool) -> str | None:
    """Who runs the ranks: for several, processes of this machine, as in a Ray actor with a
    placement group vLLM would have Ray start them elsewhere. A single rank on a CPU runs in its
    engine's own process: vLLM would give it one more, to set threads that `set_environment` has
    set already.
    """
    if on_cpu and settings.devices == settings.copies:
        return ONE_PROCESS
    return "mp" if settings.devices > 1 else None


def _memory(config: RunConfig, *, on_cpu: bool) -> dict[str, Any]:
    cache = {"kv_cache_memory_bytes": int(config.generator.kv_cache_gib * 2**30)}
    if on_cpu:
        # The CPU's default block of 128 tokens shares no prefix of a short prompt among its K
        # completions.
        return cache | {"block_size": 32}
    if config.launch.share_gpu:  # what is free changes with the learner: nothing can be measured
        shared = cache | {"gpu_memory_utilization": SHARED_UTILIZATION}
        return shared | ({"enable_sleep_mode": True} if config.launch.take_turns else {})
    return {"gpu_memory_utilization": config.generator.gpu_memory_utilization}


def _batched(at_once: int, *, on_cpu: bool) -> dict[str, int]:
    """Tokens of one step: each completion takes one, and on GPUs prompts want more than vLLM's own
    number.
    """
    if on_cpu and at_once <= BATCHED_TOKENS:
        return {}
    return {"max_num_batched_tokens": at_once if on_cpu else max(at_once, BATCHED_TOKENS_GPU)}


async def _ranks(engine: Any, method: str, *given: Any) -> list[Any]:
    """What each rank answers. vLLM 0.32's own `collective_rpc` calls every copy of an engine
    (`data_parallel_size`) as this does, and keeps the answers of the first.
    """
    copies = await engine.engine_core.call_utility_all_async(
        "collective_rpc", method, None, given, None
    )
    return [answer for ranks in copies for answer in ranks]


def _check(answers: Sequence[str]) -> None:
    """Raises TransferAborted if a rank could not: the others have then changed nothing either."""
    if reasons := [answer for answer in answers if answer]:
        raise TransferAborted(reasons[0])


def _completion(output: Any) -> Completion:
    token_ids = np.asarray(output.token_ids, np.int32)
    logprobs = np.asarray(
        [
            step[token].logprob
            for token, step in zip(output.token_ids, output.logprobs, strict=True)
        ],
        np.float32,
    )
    if output.weight_versions is None:
        raise RuntimeError(
            "vLLM reported no weight version: weights must be published before sampling"
        )
    spans = tuple(
        VersionSpan(version=Version.parse(s.version), start=s.start, end=s.end)
        for s in output.weight_versions
        if s.start < s.end
    )
    return Completion(
        token_ids=token_ids,
        behavior_logprobs=logprobs,
        spans=spans,
        finish_reason="length" if output.finish_reason == "length" else "stop",
        text=output.text,
    )
