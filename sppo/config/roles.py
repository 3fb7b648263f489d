"""[generator], [scorer], [weights], [launch], [eval]: the roles beside the learner."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from sppo.config import engine_arguments
from sppo.config.fields import (
    FREE,
    ON_RESUME,
    PER_ROLE,
    Coefficient,
    Count,
    DeepTable,
    Name,
    Positive,
    Processes,
    Seconds,
    Settings,
    Threads,
    deep_table,
    http_url,
)
from sppo.config.judge import JudgeConfig

JUDGE = "llm-judge"


class GeneratorConfig(Settings):
    engine: Annotated[Literal["vllm", "transformers"], PER_ROLE] = "vllm"
    """Inference engine: vLLM, or Transformers for machines that have no vLLM."""
    replicas: Annotated[Processes, FREE] = 1
    """Generators to start; `sppo-cli scale` changes their number while the run goes on."""
    tensor_parallel: Annotated[Processes, FREE] = 1
    """GPUs over which one vLLM engine splits the model."""
    cpus: Annotated[Coefficient, FREE] = 0.0
    """CPUs that Ray sets aside for each generator; 0 sets none aside: roles share cores."""
    host: Annotated[Name, FREE] = "127.0.0.1"
    """Address of this generator's own at which it meets the learner for a weight sync; `auto` takes
    the one by which this machine reaches the broker.
    """
    max_groups: Annotated[int, Field(gt=0, le=65536), FREE] = 64
    """Groups that one generator samples at a time."""
    threads: Annotated[Threads, FREE] = 0
    """CPU threads of the engine; 0 takes every core (threads that wait do not spin, so roles may
    share cores).
    """
    kv_cache_gib: Annotated[float, Field(ge=0.01, le=65536), FREE] = 1.0
    """Key-value cache on a CPU, or on a GPU that is shared (`launch.share_gpu`), GiB."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1), FREE] = 0.9
    """Share of a GPU's memory for an engine that has it alone."""
    vllm: Annotated[DeepTable, FREE] = Field(default_factory=dict)
    """Arguments of vLLM's engine by their own names, such as `enforce_eager`,
    `pipeline_parallel_size` or `max_num_batched_tokens`. vLLM checks them before anything starts;
    what would change the distribution that is sampled from is refused (docs/gpu.md).
    """
    start_timeout_s: Annotated[Seconds, FREE] = 300.0
    """Longest time from start to the first heartbeat; of `sppo-cli eval` until its engine is up."""

    @property
    def devices(self) -> int:
        """GPUs of one generator."""
        return self.tensor_parallel * engine_arguments.processes(self.vllm)

    @property
    def copies(self) -> int:
        """Of the model, in one engine."""
        return int(self.vllm.get("data_parallel_size", 1))

    @field_validator("vllm", mode="before")
    @classmethod
    def _arguments(cls, value: Any) -> Any:
        if isinstance(value, dict):
            engine_arguments.check(value)
        return deep_table(value)


class ScorerConfig(Settings):
    name: Name = "last-number"
    """`last-number`, `closest-number` (compares), `exact-match`, `boxed-answer`, `reasoning-gym`,
    `math`, `reward-model`, `pairwise-model` (compares), `llm-judge` (with `scorer.judge`),
    `compose` (a sum of others), or your own function or class as `package.module:name` (`async` or
    not), which runs in processes of its own.
    """
    options: Annotated[DeepTable, FREE] = Field(default_factory=dict)
    """Of a scorer that is a class: what it is made with, such as the model that it loads."""
    mode: Annotated[Literal["http", "inline"], PER_ROLE] = "http"
    """`http`: a service of its own; `inline`: each generator by itself."""
    replicas: Annotated[Processes, FREE] = 1
    """Scorer services to start in mode `http`; `sppo-cli scale` changes their number while the run
    goes on.
    """
    cpus: Annotated[Coefficient, FREE] = 0.0
    """CPUs that Ray sets aside for each scorer service; 0 sets none aside."""
    gpus: Annotated[Coefficient, FREE] = 0.0
    """GPUs, or a share of one, that Ray sets aside for each scorer service."""
    host: Annotated[Name, FREE] = "127.0.0.1"
    """Address at which our own service listens, or `auto` as for a generator; beyond loopback it
    wants a token.
    """
    port: Annotated[int, Field(ge=0, le=65535), FREE] = 0
    """Port of our own service, for who watches or guards it from outside; 0 takes a free one, as
    several on one machine must.
    """
    url: Annotated[str, PER_ROLE] = ""
    """A scorer service that already runs elsewhere; empty starts our own."""
    token: SecretStr = SecretStr("")
    """Bearer token of the service; our own service makes one up."""
    timeout_s: Annotated[Seconds, FREE] = 30.0
    """Deadline of one group's scoring; importing your module, and what its first call loads, do not
    count.
    """

    judge: JudgeConfig = JudgeConfig()

    @property
    def class_options(self) -> dict[str, Any]:
        """What the scorer's class is made with: for `llm-judge`, also as a part of `compose`,
        [scorer.judge] with its key.
        """
        judge = self.judge.model_dump(mode="json", exclude={"api_key"})
        judge["api_key"] = self.judge.api_key.get_secret_value()
        if self.name == JUDGE:
            return judge
        if not self._judges:
            return dict(self.options)
        parts = [
            {**part, "options": judge} if part in self._judges else part
            for part in self.options["parts"]
        ]
        return {**self.options, "parts": parts}

    @property
    def _judges(self) -> list[Any]:
        """Parts of `compose` that are judges."""
        parts = self.options.get("parts") if self.name == "compose" else None
        return [
            part
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, dict) and part.get("name") == JUDGE
        ]

    @property
    def keeps_time(self) -> bool:
        """Whether a scorer of ours has deadlines of its own, and `timeout_s` is not for a group."""
        return (self.name == JUDGE or bool(self._judges)) and not self.url

    @model_validator(mode="after")
    def _judge_has_one_place(self) -> ScorerConfig:
        for key in self.options if self.name == JUDGE else ():
            raise ValueError(f"options.{key}: the settings of {JUDGE} are scorer.judge.<setting>")
        return self

    @field_validator("options", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return deep_table(value)

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_url(value, secret="the token as SPPO_SCORER__TOKEN")


class WeightsConfig(Settings):
    transport: Literal["auto", "gloo", "nccl", "shared"] = "auto"
    """`nccl` on GPUs, `gloo` on CPUs, `shared` through memory that both ends have: of the GPU that
    they share (CUDA IPC), or of one machine's CPUs. `auto` follows the learner's device and
    `launch.share_gpu`.
    """
    host: Annotated[Name, FREE] = "127.0.0.1"
    """The learner's address, at which generators meet it for a weight sync, or `auto` as for a
    generator.
    """
    trusted_network: Annotated[bool, FREE] = False
    """Weights travel without authentication or encryption, over gloo as over NCCL. True says that
    none but this run's own machines reach `weights.host` and `generator.host`, which must be
    loopback addresses otherwise.
    """
    phase_timeout_s: Annotated[Seconds, FREE] = 60.0
    """Deadline of each phase of a weight sync, in a transfer of each bucket; it must hold the
    longest step of an engine. A role that lives but gets nothing done for five of it, at least
    90 s, is ended and started again.
    """


class LaunchConfig(Settings):
    ray_address: Annotated[str, FREE] = ""
    """Address of a Ray cluster that is up (`auto` finds the one of this machine); empty starts Ray
    here. Machines of a cluster share the run directory, and need a broker of their own
    (`broker.url`).
    """
    share_gpu: Annotated[bool, FREE] = False
    """Learner and generators are on one GPU together: weights go through its memory, and an
    engine's cache is `generator.kv_cache_gib`.
    """
    take_turns: Annotated[bool, ON_RESUME] = False
    """With `share_gpu`, where memory is short: engines sleep while the learner trains, so that
    their weights and caches are not there beside its activations. Neither works while the other
    does.
    """
    room_wait_s: Annotated[Coefficient, FREE] = 0.0
    """Longest wait for machines that whoever scales the Ray cluster adds for this run, which sees
    all that is missing; 0 refuses at once what the machines that are there could not hold.
    """
    environment: Annotated[tuple[Name, ...], FREE] = ()
    """Variables of `up`'s environment that roles on a Ray cluster get, by name or by a beginning
    and `*`; HF_TOKEN, HF_ENDPOINT and NCCL_* travel anyway.
    """
    max_restarts: Annotated[Count, FREE] = 3
    """Restarts of one role, or of the embedded broker, within ten minutes; then the run ends with
    the reason.
    """


class EvalConfig(Settings):
    every_steps: Positive = 20
    """Optimizer steps between evaluations; before the first step and after the last there always is
    one.
    """
