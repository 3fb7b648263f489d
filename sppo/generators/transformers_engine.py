"""Transformers as a generator's engine, with its own continuous batching: for machines without
vLLM.

A thread of Transformers steps the model; `pause` parks it between two steps, with everything in
flight kept. Written against Transformers 5.19. Beyond its public interface it uses the batch
processor's sampling step (to sample greedily beside sampled requests, and with a seed for each),
its list of the requests in a step, the scheduler's requests (to know which token a new version
begins with), `num_return_sequences` (K completions share one prefill), and the output router's
handlers (to forget a cancelled request).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sppo import compute, families, models
from sppo.config import RunConfig, cpu_threads
from sppo.generators.in_flight import Flights
from sppo.types import Completion, SamplingParams, Version
from sppo.weights.gloo import GlooReceiver
from sppo.weights.names import as_parameters
from sppo.weights.protocol import unheard
from sppo.weights.shared import SharedReceiver

PAGE = 32
SPARE_PAGES = 16
STEP_TOKENS = 1024
STOP_TIMEOUT_S = 10.0


class TransformersEngine:
    """See `sppo.generators.engine.Engine`."""

    world_size = 1

    def __init__(self, config: RunConfig, model_path: str, *, transport: str, on_cpu: bool) -> None:
        """Raises ValueError for NCCL: everything is received before anything is copied."""
        if transport not in ("gloo", "shared"):
            raise ValueError(
                "generator.engine = 'transformers' receives weights over gloo or through shared "
                f"memory, not {transport!r}"
            )
        self._config = config
        self._path = model_path
        self._device = "cpu" if on_cpu else "cuda"
        self._limit = config.task.max_prompt_tokens + config.sampling.max_tokens
        self._receiver = (
            GlooReceiver() if transport == "gloo" else SharedReceiver(torch.device(self._device))
        )
        self._hold: _Hold | None = None
        self._model: Any = None
        self._manager: Any = None
        self._flights: Flights | None = None

    async def start(self) -> None:
        """Load the model and start the thread that steps it."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
        from transformers.generation import ContinuousBatchingConfig

        settings = self._config.generator
        if self._device == "cpu":
            torch.set_num_threads(cpu_threads(settings.threads))
        attention = families.plain_attention(families.read_config(self._path))
        self._tokenizer = AutoTokenizer.from_pretrained(self._path, trust_remote_code=False)
        self._model = AutoModelForCausalLM.from_pretrained(
            self._path,
            dtype=compute.dtype(self._config),
            attn_implementation=attention,
            trust_remote_code=False,
        ).to(self._device)
        self._eos = list(models.stop_ids(self._path, self._tokenizer))
        most = settings.max_groups * self._config.sampling.completions
        self._manager = self._model.init_continuous_batching(
            # A temperature that is not 1 makes the manager apply temperatures at all; each request
            # brings its own. No top-k and no top-p: the distribution is not truncated.
            GenerationConfig(
                do_sample=True, temperature=0.5, top_k=0, top_p=1.0, eos_token_id=self._eos or -1
            ),
            ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=self._blocks(settings.kv_cache_gib, most),
                max_batch_tokens=max(STEP_TOKENS, most),
                max_requests_per_batch=most,
                # A cached prefix would outlive the weights that computed it.
                allow_block_sharing=False,
                use_async_batching=False,
                use_cuda_graph=False,
                auto_switch_to_flash=False,  # it would fetch kernels from the hub
                return_logprobs=True,
                per_request_processors=True,
                seed=self._config.seed,
            ),
        )
        if self._device == "cpu" or attention == "eager":
            from sppo.generators import paged_attention

            paged_attention.install(self._model)
        self._manager.warmup()  # makes the batch processor
        self._flights = Flights(self._manager, self._tokenizer, self._eos)
        self._manager.start()

    def _blocks(self, gib: float, requests: int) -> int:
        """Pages of the cache: what the memory holds, or what so many requests can need if that is
        less.
        """
        from transformers.generation.continuous_batching.utils import (
            find_head_dim,
            find_num_key_value_heads,
        )

        config = self._model.config
        numbers = (
            config.num_hidden_layers * 2 * find_num_key_value_heads(config) * find_head_dim(config)
        )
        token = numbers * self._model.dtype.itemsize
        return min(
            int(gib * 2**30 // (token * PAGE)), requests * (self._limit // PAGE + 1) + SPARE_PAGES
        )

    async def sample(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
    ) -> list[Completion]:
        """See `Engine.sample`. Raises ValueError for a prompt that does not fit."""
        if self._flights is None or self._flights.version is None:
            raise RuntimeError("no weight version: weights must be published before sampling")
        prompt, k = list(prompt_ids), sampling.completions
        if (
            not prompt or len(prompt) + sampling.max_tokens > self._limit
        ):  # it would end the manager's thread
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and {sampling.max_tokens} exceed {self._limit}"
            )
        forks = (
            k > 1 and len(prompt) > 1
        )  # the prompt is run once; names of the others are the manager's
        others = [
            f"{request_id}__child#{i}" if forks else f"{request_id}#{i}" for i in range(k - 1)
        ]
        names = [request_id, *others]
        flights, futures = self._flights, self._flights.expect(names, sampling)
        try:
            self._manager.num_return_sequences = k if forks else 1
            for name in names[:1] if forks else names:
                self._add(prompt, name, sampling)
            return list(await asyncio.gather(*futures))
        except BaseException:
            if self._manager is not None:
                flights.forget(names)
            raise
        finally:
            flights.landed(names)

    def _add(self, prompt: list[int], name: str, sampling: SamplingParams) -> None:
        accepted = self._manager.add_request(
            prompt,
            request_id=name,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._eos or -1,
            temperature=float(sampling.temperature) or 1.0,
        )
        if accepted is None:
            raise RuntimeError("the thread that steps the model has ended")

    async def label(self, version: Version) -> None:
        """See `Engine.label`."""
        assert self._flights is not None
        self._flights.begin(version)

    async def ping(self) -> None:
        """See `Engine.ping`: answered by the thread that steps the model, between two steps."""
        hold = _Hold(self._manager)
        await hold.enter()
        await hold.leave()

    async def pause(self) -> None:
        """Freeze completions in flight, within one step."""
        if self._hold is None:
            hold = _Hold(self._manager)
            await hold.enter()
            self._hold = hold

    async def resume(self) -> None:
        """Go on sampling."""
        if self._hold is not None:
            hold, self._hold = self._hold, None
            await hold.leave()

    async def join_group(self, join: dict[str, Any]) -> None:
        """See `WeightTarget.join_group`."""
        arguments = {k: v for k, v in join.items() if k != "rank_offset"}
        host = self._config.generator.host
        await asyncio.to_thread(
            self._receiver.join, rank=join["rank_offset"], own_host=host, **arguments
        )

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = unheard
    ) -> None:
        """Receive everything, then copy it in between two steps; what is in flight goes on from its
        cache.

        Raises ValueError, before anything is copied, unless these are the model's weights, all of
        them.
        """
        assert self._flights is not None
        received = await asyncio.to_thread(lambda: self._receiver.receive(**update, moved=moved))
        weights = await asyncio.to_thread(as_parameters, self._model, received)
        hold = _Hold(self._manager)
        await hold.enter()
        copying = asyncio.ensure_future(asyncio.to_thread(_copy, weights, self._model))
        try:
            await asyncio.shield(copying)
            self._flights.begin(version)
        finally:
            await asyncio.wait(
                [copying]
            )  # a cancelled load must not let the engine go on with half of it
            await hold.leave()

    async def close(self) -> None:
        """End the thread; requests in flight fail."""
        await self.resume()
        if self._manager is not None:
            manager, self._manager = self._manager, None
            await asyncio.to_thread(
                manager.stop, block=True, timeout=STOP_TIMEOUT_S, hard_stop=True
            )
        self._receiver.close()


class _Hold:
    """The manager's pause, held by a thread of its own: it must be left where it was entered, and
    one that waits for an engine that has hung keeps no process alive.
    """

    def __init__(self, manager: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[None] = self._loop.create_future()
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._release = threading.Event()
        threading.Thread(target=self._run, args=(manager,), daemon=True, name="hold").start()

    def _run(self, manager: Any) -> None:
        try:
            with manager.pause():
                self._tell(self._entered)
                self._release.wait()
        except RuntimeError as error:  # the thread that steps the model has ended
            self._tell(self._entered, error)
        self._tell(self._left)

    def _tell(self, future: asyncio.Future[None], error: Exception | None = None) -> None:
        def tell() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(tell)

    async def enter(self) -> None:
        """Returns once the engine stands still; one that is not waited for to the end is let go at
        once.
        """
        try:
            await self._entered
        except BaseException:
            self._release.set()
            raise

    async def leave(self) -> None:
        """Let the engine go on."""
        self._release.set()
        await self._left


@torch.no_grad()
def _copy(weights: dict[str, Tensor], model: Any) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
