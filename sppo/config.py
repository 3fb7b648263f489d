"""Settings: one model per role and one `RunConfig`, parsed before anything heavy is imported.

Sources in rising order: the TOML file or preset, the environment (`SPPO_LEARNER__LR=1e-6`), `--set
learner.lr=1e-6`. Unknown keys are errors. Each default stands here and nowhere else.
"""

from __future__ import annotations

import importlib.resources
import ipaddress
import json
import math
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from sppo import strict_json
from sppo.errors import ConfigError
from sppo.limits import MAX_COMPLETIONS, MAX_FRAME, MAX_INT


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


# Every number has an end: beyond these an engine, a timer, a frame or a float32 would overflow,
# deep in a run.
Positive = Annotated[int, Field(gt=0, le=MAX_INT)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Processes = Annotated[int, Field(gt=0, le=1024)]
Threads = Annotated[int, Field(ge=0, le=4096)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
Coefficient = Annotated[float, Field(ge=0, le=1e6)]
Name = Annotated[str, AfterValidator(_filled)]


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (
            int,
            float,
        ):
            raise ValueError("must be a number, not true or false")
        return value


class ModelConfig(_Settings):
    name: Name = "smollm2-135m"
    """A local folder in Hugging Face format, a hub id, or `smollm2-135m` (shipped inside a
    package).
    """
    revision: str = ""
    """Hub revision to pin; empty takes the default branch."""
    export_dtype: Literal["base", "bfloat16", "float16", "float32"] = "base"
    """Number format of the exported weights; `base` is that of the model the run began with."""


class TaskConfig(_Settings):
    name: Name = "reasoning-gym:chain_sum"
    """`reasoning-gym:<dataset>`, or `jsonl:<file>` with `question` and `answer` on each line."""
    params: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Arguments of the reasoning-gym dataset, such as `min_terms`."""
    prompt: Name = "{question}"
    """User message; fields in braces are the entry's columns, and the fields of its `metadata`. A
    `question` that is a list of chat messages keeps them; the prompt is then made from its last
    message.
    """

    @field_validator("params", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        for key, given in value.items() if isinstance(value, dict) else ():
            if not isinstance(given, (int, float, str)) or (
                isinstance(given, float) and not math.isfinite(given)
            ):
                raise ValueError(
                    f"{key} must be text, a finite number, true or false, not {given!r:.80}"
                )
        return value

    pool: Positive = 6000
    """Entries drawn from a procedural dataset before repeated prompts are dropped."""
    held_out: Count = 200
    """Distinct prompts held out for evaluation, chosen by a hash of the question (of the whole
    prompt, where `task.prompt` names other columns of a file); 0 for no evaluation.
    """
    max_prompt_tokens: Positive = 1024
    """A longer prompt is refused before anything starts."""


class SamplingConfig(_Settings):
    completions: Annotated[int, Field(gt=0, le=MAX_COMPLETIONS)] = 8
    """K, completions per prompt: at least 2, or 1 with `learner.target` = "batch_softmean"."""
    temperature: float = Field(1.0, ge=0.01, le=1e3)
    """Sampling temperature; the learner divides its logits by the same number. vLLM raises any
    below 0.01 to it.
    """
    max_tokens: Positive = 512
    """Longest completion in tokens."""
    top_p: float = 1.0
    """Must be 1: truncation makes the behaviour policy another distribution (docs/objective.md)."""

    @field_validator("top_p")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value != 1.0:
            raise ValueError(
                "top-p below 1 truncates the distribution that the off-policy correction divides "
                "by; use 1.0"
            )
        return value

    @model_validator(mode="after")
    def _fits_a_frame(self) -> SamplingConfig:
        nbytes = 8 * self.completions * self.max_tokens  # a token and its log-prob, 4 bytes each
        if nbytes > MAX_FRAME // 2:
            raise ValueError(
                f"completions = {self.completions} of max_tokens = {self.max_tokens}: one group "
                f"may take {nbytes:,} "
                f"bytes, and {MAX_FRAME // 2:,} is the most; lower either"
            )
        return self


class LearnerConfig(_Settings):
    steps: Positive = 60
    """Optimizer steps since the base model at which the run ends."""
    groups_per_step: Positive = 8
    """Groups in one batch."""
    mini_batches: Positive = 1
    """Disjoint mini-batches per batch, one optimizer step each."""
    lookahead_steps: Count = 1
    """Batches of tickets in flight beyond the one in use; 0 is the synchronous schedule."""
    eta: Scale = 1.0
    """Inverse temperature of the SPPO target."""
    target: Literal["centered", "softmean", "batch_softmean", "half"] = "centered"
    """What is subtracted from the score, docs/objective.md: the group's mean residual, the soft
    mean of the group or of the whole batch, or 1/2 from a win rate.
    """
    link: Literal["none", "bradley-terry"] = "none"
    """`bradley-terry` turns rewards into preferences σ((r_i − r_j) / link_temperature)."""
    link_temperature: Scale = 1.0
    """τ of the link, in units of reward."""
    select: Literal["all", "best_worst"] = "all"
    """Completions of a group that are trained. `best_worst` biases the estimate
    (docs/objective.md).
    """
    label: Literal["group", "pair", "hard"] = "group"
    """With `target` = "half" and `select` = "best_worst": the target from the win rate over the
    group, from the pair's own win probability, or ±1/2.
    """
    anchor: Literal["proximal", "iteration", "behavior"] = "proximal"
    """The policy that log-ratios are taken against: the learner's weights when the batch arrived, a
    snapshot that is refreshed every `iteration_steps`, or whatever sampled the tokens.
    """
    iteration_steps: Positive = 100
    """Optimizer steps between snapshots of `anchor` = "iteration"; generators get new weights only
    then.
    """
    snapshot: Literal["device", "host"] = "device"
    """Where snapshots (the anchor of `iteration`, the reference of `kl_coef`) lie: by the model, or
    in host memory.
    """
    weight: Literal["geometric", "sequence", "masked", "none"] = "geometric"
    """Off-policy weight of a completion with importance ratio ρ: clipped ρ^(1/tokens), truncated ρ,
    1 or 0, or 1.
    """
    weight_cap: Coefficient = 0.0
    """Cap of the weight, above 1: `geometric` and `masked` keep [1/cap, cap]; 0 takes 1.2, for
    `sequence` 2.
    """
    length_normalize: bool = False
    """Regress the mean instead of the sum of a completion's token log-ratios."""
    kl_coef: Coefficient = 0.0
    """Weight of the KL divergence from the model that the run began with (k3 estimate, summed over
    tokens).
    """
    entropy_coef: Coefficient = 0.0
    """Weight of the entropy bonus, summed over tokens."""
    lr: float = Field(1e-6, gt=0, le=1)
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 0
    """Optimizer steps of linear warm-up."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """AdamW's betas."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """AdamW's decoupled weight decay."""
    max_grad_norm: Scale = 1.0
    """Gradients are clipped to this global norm."""
    micro_batch_tokens: Positive = 4096
    """Tokens, padding included, in one forward and backward; a single larger group goes alone."""
    share_prompt: bool = True
    """Run the prompt of a group once instead of once per completion; off by itself for families
    where that is not exact (`docs/families.md`).
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner runs."""
    kernels: Literal["auto", "triton", "torch"] = "auto"
    """What computes log-probs and the loss: `triton`, plain `torch` in chunks of the vocabulary, or
    `auto`, which takes Triton on a GPU.
    """
    fast_logits: bool = False
    """Without Triton, round logits to bf16: faster, and each token's log-prob is off by 2e-3 to
    2e-2 nats. Nothing where `compute` comes to float32.
    """
    ranks: Processes = 1
    """Processes that share the model by FSDP2, all on one machine: a GPU each, or a part of the
    CPU's threads.
    """
    cpus: Coefficient = 0.0
    """CPUs that Ray sets aside for each rank; 0 sets none aside: roles share cores."""
    threads: Threads = 0
    """CPU threads; 0 takes every core (threads that wait do not spin, so roles may share cores)."""
    checkpoint_every: Positive = 20
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept."""
    parity_threshold: Coefficient = 0.0
    """Largest mean |engine − learner| log-prob of a token in nats, at equal weights; 0 takes 0.1
    for bfloat16 and 0.01 for float32. Above it the first batch ends the run, a later one warns, and
    the third in a row ends it.
    """
    batch_timeout_s: Seconds = 600.0
    """Longest wait for the groups of one batch before the run stops and says who was silent."""

    @model_validator(mode="after")
    def _divides(self) -> LearnerConfig:
        for name in ("groups_per_step", "steps"):
            if getattr(self, name) % self.mini_batches:
                raise ValueError(
                    f"mini_batches = {self.mini_batches} must divide {name} = {getattr(self, name)}"
                )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> LearnerConfig:
        if self.label != "group" and (self.target, self.select) != ("half", "best_worst"):
            raise ValueError(
                f"label = {self.label!r} needs target = 'half' and select = 'best_worst', "
                f"not {self.target!r} and {self.select!r}"
            )
        if (self.kernels, self.device) == ("triton", "cpu"):
            raise ValueError(
                "kernels = 'triton' needs a GPU, not device = 'cpu'; use 'auto' or 'torch'"
            )
        if 0 < self.weight_cap <= 1:
            raise ValueError(
                f"weight_cap = {self.weight_cap} must be above 1, or 0 for the mode's own"
            )
        if self.anchor == "iteration" and self.iteration_steps % self.mini_batches:
            raise ValueError(
                f"mini_batches = {self.mini_batches} must divide iteration_steps = "
                f"{self.iteration_steps}"
            )
        return self

    @property
    def needs_preferences(self) -> bool:
        """Whether the scorer must compare completions instead of rewarding them."""
        by_rank = self.label == "hard"  # only which is better matters
        return self.target == "half" and not by_rank and self.link == "none"


class GeneratorConfig(_Settings):
    engine: Literal["vllm", "transformers"] = "vllm"
    """Inference engine: vLLM, or Transformers for machines that have no vLLM."""
    replicas: Processes = 1
    """Generators to start; `sppo-cli scale` changes their number while the run goes on."""
    tensor_parallel: Processes = 1
    """GPUs over which one vLLM engine splits the model."""
    cpus: Coefficient = 0.0
    """CPUs that Ray sets aside for each generator; 0 sets none aside: roles share cores."""
    host: Name = "127.0.0.1"
    """Address of this generator's own at which it meets the learner for a weight sync; `auto` takes
    the one by which this machine reaches the broker.
    """
    max_groups: Annotated[int, Field(gt=0, le=65536)] = 64
    """Groups that one generator samples at a time."""
    threads: Threads = 0
    """CPU threads of the engine; 0 takes every core (threads that wait do not spin, so roles may
    share cores).
    """
    kv_cache_gib: Annotated[int, Field(gt=0, le=65536)] = 1
    """Key-value cache on a CPU, GiB."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for the engine."""
    enforce_eager: bool = True
    """Leave out graph capture: faster start, slower decoding on a GPU."""
    start_timeout_s: Seconds = 300.0
    """Longest time from start to the first heartbeat."""


class ScorerConfig(_Settings):
    name: Name = "last-number"
    """`last-number`, `closest-number` (compares), `exact-match`, `boxed-answer`, `reasoning-gym`,
    or your own function as `package.module:name` (`async` or not), which runs in processes of its
    own.
    """
    mode: Literal["http", "inline"] = "http"
    """`http`: a service of its own; `inline`: each generator by itself."""
    replicas: Processes = 1
    """Scorer services to start in mode `http`; `sppo-cli scale` changes their number while the run
    goes on.
    """
    cpus: Coefficient = 0.0
    """CPUs that Ray sets aside for each scorer service; 0 sets none aside."""
    gpus: Coefficient = 0.0
    """GPUs, or a share of one, that Ray sets aside for each scorer service."""
    host: Name = "127.0.0.1"
    """Address at which our own service listens, or `auto` as for a generator; beyond loopback it
    wants a token.
    """
    url: str = ""
    """A scorer service that already runs elsewhere; empty starts our own."""
    token: SecretStr = SecretStr("")
    """Bearer token of the service; our own service makes one up."""
    timeout_s: Seconds = 30.0
    """Deadline of one group's scoring; importing your module, and what its first call loads, do not
    count.
    """

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if "@" in value:
            raise ValueError("carries credentials; give the token as SPPO_SCORER__TOKEN")
        if value and not urlsplit(value).hostname:
            raise ValueError("names no host")
        urlsplit(value).port  # noqa: B018 - raises ValueError for one that is no number or too large
        return value.rstrip("/")


class BrokerConfig(_Settings):
    url: str = ""
    """`redis://`, `rediss://` or `unix://` address of your own server; empty starts an embedded
    one.
    """
    username: str = ""
    """User of your own server."""
    password: SecretStr = SecretStr("")
    """Password of your own server; give it as SPPO_BROKER__PASSWORD."""
    tls_ca: str = ""
    """Certificate authority (a PEM file) of a `rediss://` server; empty takes the system's."""
    lease_s: Seconds = 20.0
    """How long a ticket is on loan without renewal."""
    renew_s: Seconds = 5.0
    """How often a generator renews the leases it works on."""
    outage_s: Seconds = 60.0
    """How long a role waits for a server that is gone, loading or full before it gives up."""
    max_attempts: Positive = 3
    """Reported failures of one ticket before it becomes a dead letter."""
    max_groups: Positive = 4096
    """Groups in the queue before generators are held back."""
    max_bytes: Annotated[int, Field(gt=0, le=2**53)] = 2 * 1024**3
    """Bytes in the queue before generators are held back."""

    @model_validator(mode="after")
    def _renews_in_time(self) -> BrokerConfig:
        if self.renew_s * 2 > self.lease_s:
            raise ValueError(
                f"renew_s = {self.renew_s} must be at most half of lease_s = {self.lease_s}"
            )
        return self

    @field_validator("url")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value.startswith("rediss://") and "?" in value:
            raise ValueError(
                "takes no options after a question mark: certificates are always verified "
                "(broker.tls_ca)"
            )
        if "@" in value or "password=" in value or "username=" in value:
            raise ValueError(
                "carries credentials; give them as SPPO_BROKER__USERNAME and SPPO_BROKER__PASSWORD"
            )
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        urlsplit(value).port  # noqa: B018 - raises ValueError for one that is no number or too large
        return value

    @model_validator(mode="after")
    def _safe(self) -> BrokerConfig:
        host = urlsplit(self.url).hostname or ""
        if self.url.startswith("unix://") or not self.url or is_loopback(host):
            return self
        if not self.url.startswith("rediss://"):
            raise ValueError(
                f"url = {self.url!r}: prompts, tickets and the password would cross the network in "
                f"the clear; "
                "give the server TLS and write rediss://"
            )
        return self

    @field_validator("tls_ca")
    @classmethod
    def _there(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError("no such file")
        return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class WeightsConfig(_Settings):
    transport: Literal["auto", "gloo", "nccl"] = "auto"
    """`nccl` on GPUs, `gloo` on CPUs; `auto` follows the learner's device."""
    host: Name = "127.0.0.1"
    """The learner's address, at which generators meet it for a weight sync, or `auto` as for a
    generator.
    """
    trusted_network: bool = False
    """Weights travel without authentication or encryption, over gloo as over NCCL. True says that
    none but this run's own machines reach `weights.host` and `generator.host`, which must be
    loopback addresses otherwise.
    """
    phase_timeout_s: Seconds = 60.0
    """Deadline of each phase of a weight sync."""


class LaunchConfig(_Settings):
    ray_address: str = ""
    """Address of a Ray cluster that is up (`auto` finds the one of this machine); empty starts Ray
    here. Machines of a cluster share the run directory, and need a broker of their own
    (`broker.url`).
    """
    max_restarts: Count = 3
    """Restarts of one role, or of the embedded broker, within ten minutes; then the run ends with
    the reason.
    """
    hang_timeout_s: Seconds = 300.0
    """A role that lives but gets nothing done for so long is ended and started again."""


class EvalConfig(_Settings):
    every_steps: Positive = 20
    """Optimizer steps between evaluations; before the first step and after the last there always is
    one.
    """
    timeout_s: Seconds = 600.0
    """Longest wait for one evaluation."""


class RunConfig(_Settings):
    """Everything one run needs. `SPPO_<ROLE>__<SETTING>` in the environment overrides the file."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Names the run: its directory by default, and its keys in the broker."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the order of prompts and of sampling; below 2^32, where the seeds of the engines
    end.
    """
    compute: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format in which learner and engines compute and weights travel: `auto` takes bfloat16
    on GPUs and on CPUs that multiply it (AVX512_BF16, AMX), float32 elsewhere. Master weights and
    checkpoints are float32 all the same.
    """
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    sampling: SamplingConfig = SamplingConfig()
    learner: LearnerConfig = LearnerConfig()
    generator: GeneratorConfig = GeneratorConfig()
    scorer: ScorerConfig = ScorerConfig()
    broker: BrokerConfig = BrokerConfig()
    weights: WeightsConfig = WeightsConfig()
    eval: EvalConfig = EvalConfig()
    launch: LaunchConfig = LaunchConfig()

    @model_validator(mode="after")
    def _weights_stay_private(self) -> RunConfig:
        hosts = {
            section: getattr(self, section).host for section in ("weights", "generator", "scorer")
        }
        for section, host in hosts.items():
            key = f"{section}.host"
            if host in ("0.0.0.0", "::"):
                raise ValueError(f"{key} = {host!r}: name one address, or `auto`")
            if section != "scorer" and not is_loopback(host) and not self.weights.trusted_network:
                raise ValueError(
                    f"{key} = {host!r}: weights travel without authentication; use a loopback "
                    f"address, or say that "
                    "only this run's machines reach that network: weights.trusted_network = true"
                )
        return self

    @model_validator(mode="after")
    def _roles_agree(self) -> RunConfig:
        if self.generator.engine == "transformers" and self.generator.tensor_parallel > 1:
            raise ValueError(
                f"generator.tensor_parallel = {self.generator.tensor_parallel}: only "
                f"generator.engine = 'vllm' splits "
                "a model; use 1"
            )
        if self.generator.engine == "transformers" and self.weights.transport == "nccl":
            raise ValueError(
                "weights.transport = 'nccl': generator.engine = 'transformers' receives weights "
                "over gloo; use "
                "'gloo' or 'auto'"
            )
        if self.scorer.url and self.scorer.mode != "http":
            raise ValueError(f"scorer.url = {self.scorer.url!r} needs scorer.mode = 'http'")
        if self.launch.hang_timeout_s < 3 * self.weights.phase_timeout_s:
            raise ValueError(
                f"launch.hang_timeout_s = {self.launch.hang_timeout_s}: a weight sync may rightly "
                f"take three deadlines "
                f"of weights.phase_timeout_s = {self.weights.phase_timeout_s}; raise it to at "
                f"least "
                f"{3 * self.weights.phase_timeout_s:g}"
            )
        alone = self.learner.target == "batch_softmean" and self.learner.link == "none"
        if self.sampling.completions < 2 and not alone:
            what = f"learner.target = {self.learner.target!r} with learner.link = {self.learner.link!r}"
            raise ValueError(
                f"sampling.completions = {self.sampling.completions}: {what} compares the "
                f"completions of one prompt; "
                "use 2 or more"
            )
        return self


ENVIRONMENT = "environment"
SECRETS = ("broker.password", "scorer.token")
OTHER_VARIABLES = ("SPPO_CACHE", "SPPO_CRASH_POINT", "SPPO_CHAOS_DIR")

# Settings that a second `up` on the same run directory may change: they say how long or where, not
# what is learned.
RESUME_MAY_CHANGE = {
    *(
        "learner.steps",
        "learner.threads",
        "learner.ranks",
        "learner.cpus",
        "learner.keep_checkpoints",
    ),
    *(
        "learner.parity_threshold",
        "learner.snapshot",
        "learner.micro_batch_tokens",
        "learner.batch_timeout_s",
        "learner.kernels",
    ),
    *(
        "generator.replicas",
        "generator.tensor_parallel",
        "generator.cpus",
        "generator.threads",
        "generator.host",
    ),
    *("generator.max_groups", "generator.kv_cache_gib", "generator.gpu_memory_utilization"),
    *("generator.enforce_eager", "generator.start_timeout_s", "eval.timeout_s"),
    *("scorer.replicas", "scorer.cpus", "scorer.gpus", "scorer.host", "scorer.timeout_s"),
    *(
        "broker.lease_s",
        "broker.renew_s",
        "broker.outage_s",
        "broker.tls_ca",
        "broker.max_groups",
        "broker.max_bytes",
    ),
    *(
        "compute",
        "model.export_dtype",
        "weights.host",
        "weights.trusted_network",
        "weights.phase_timeout_s",
    ),
    *("launch.max_restarts", "launch.hang_timeout_s", "launch.ray_address"),
}

# Settings in which the roles of one run may differ besides: each is one role's own affair, or an
# address.
ROLES_MAY_DIFFER = (RESUME_MAY_CHANGE - {"compute"}) | {
    *("learner.device", "learner.checkpoint_every", "generator.engine", "broker.url"),
    *("broker.username", "broker.max_attempts", "scorer.url", "scorer.mode"),
}


def presets() -> list[str]:
    """Names of the configurations that ship in the package."""
    folder = importlib.resources.files("sppo.presets")
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load(source: str, overrides: list[str] | None = None, *, environment: bool = True) -> RunConfig:
    """The configuration of a TOML file or preset, with the environment and `key=value` overrides
    applied.

    Raises ConfigError naming each wrong setting, its value and what is expected.
    """
    values: dict[str, Any] = {}
    layers = _layers(source, overrides, environment=environment)
    for _, layer in layers:
        _merge(values, layer)
    config = _validate(values, source, layers)
    broker = config.broker
    if (
        environment
        and broker.url.startswith("rediss://")
        and not broker.password.get_secret_value()
    ):
        raise ConfigError(
            f"broker.url = {broker.url!r}: such a server needs a password; set "
            f"SPPO_BROKER__PASSWORD"
        )
    return config


def origins(source: str, overrides: list[str] | None = None) -> dict[str, tuple[Any, str]]:
    """Each setting's value in force, secrets hidden, and where it came from. Raises ConfigError as
    `load`.
    """
    config = load(source, overrides)
    found = dict.fromkeys(_keys(), "default")
    for origin, layer in _layers(source, overrides):
        for key in flatten(layer):
            # A table such as task.params is one setting.
            found[key if key in found else key.rpartition(".")[0]] = origin
    return {key: (_shown(config, key), origin) for key, origin in found.items()}


def _layers(
    source: str, overrides: list[str] | None, *, environment: bool = True
) -> list[tuple[str, dict[str, Any]]]:
    """What each source sets, in rising order, with the source's name."""
    given = [(f"--set {item.partition('=')[0]}", _parse_override(item)) for item in overrides or []]
    return [
        (source, _read_toml(source)),
        *([(ENVIRONMENT, _read_environment())] if environment else []),
        *given,
    ]


def _keys() -> list[str]:
    """Every setting as section.setting."""
    found = []
    for section, field in RunConfig.model_fields.items():
        model = field.annotation
        nested = isinstance(model, type) and issubclass(model, BaseModel)
        found += [f"{section}.{name}" for name in model.model_fields] if nested else [section]  # type: ignore[union-attr]
    return found


def _shown(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(not set)"
    return list(value) if isinstance(value, tuple) else value


def from_json(text: str) -> RunConfig:
    """Inverse of `to_json`, for roles in other processes. The environment is not read again."""
    return _validate(json.loads(text), "configuration of the run")


def to_json(config: RunConfig) -> str:
    """The configuration without its secrets, which travel beside it (`with_secrets`)."""
    return config.model_dump_json(exclude={"broker": {"password"}, "scorer": {"token"}})


def with_secrets(config: RunConfig, *, broker: BrokerConfig, scorer_token: str) -> RunConfig:
    """The configuration with the broker that was started and the scorer's token filled in."""
    scorer = config.scorer.model_copy(update={"token": SecretStr(scorer_token)})
    return config.model_copy(update={"broker": broker, "scorer": scorer})


def to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML, without secrets."""
    import tomli_w

    values = config.model_dump(mode="json")
    values["broker"].pop("password")
    values["scorer"].pop("token")
    return tomli_w.dumps(values)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"learner": {"lr": 1}}` as `{"learner.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


class _FromEnvironment(RunConfig, BaseSettings):
    """What the environment may set, and how a variable is named: `SPPO_<SECTION>__<SETTING>`."""

    model_config = SettingsConfigDict(env_prefix="SPPO_", env_nested_delimiter="__")


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """Sections, tables and lists from JSON that says each thing once. Raises ConfigError."""
        try:
            found = strict_json.loads(value)
        except ValueError as error:
            variable = next(
                v
                for v in os.environ
                if v.endswith(f"_{field_name.upper()}") and v.startswith("SPPO_")
            )
            raise ConfigError(
                f"{variable} in the environment: {error}; sections, tables and lists are written "
                f"as JSON"
            ) from error
        section = field_name in _sections() and isinstance(found, dict)
        wrong = [f"{field_name}.{key}" for key in found] if section else []
        for key in set(wrong) - set(
            _keys()
        ):  # the source itself would match a key whatever its case
            raise ConfigError(f"{key} (from {ENVIRONMENT}): no such setting{_nearest_setting(key)}")
        return found


def _read_environment() -> dict[str, Any]:
    known = {_variable(key) for key in [*_sections(), *_keys()]}
    tables = tuple(f"{_variable(key)}__" for key in _tables())
    for variable in os.environ:
        ours = variable.upper().startswith("SPPO_") and variable not in OTHER_VARIABLES
        if ours and variable not in known and not variable.startswith(tables):
            raise ConfigError(
                f"{variable} in the environment: no such setting{_nearest(variable, _variables())}"
            )
    found = dict(_Environment(_FromEnvironment)())
    for section, name in (key.split(".") for key in _tables()):
        if not isinstance(found.get(section, {}), dict) or not isinstance(
            found.get(section, {}).get(name, {}), dict
        ):
            continue  # what it is instead is said where everything is checked
        table = found.get(section, {}).get(name, {})
        table |= {key: _json_or_text(text) for key, text in table.items() if isinstance(text, str)}
    return found


def _json_or_text(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError:
        return text


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`learner.lr`, 1 as `{"learner": {"lr": 1}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _read_toml(source: str) -> dict[str, Any]:
    if not source:
        return {}
    if source in presets():
        data = importlib.resources.files("sppo.presets").joinpath(f"{source}.toml").read_bytes()
    else:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(
                f"no configuration {source!r}: neither a file nor a preset ({', '.join(presets())})"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{source} cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(utf8(data, source))
    except (
        ValueError,
        RecursionError,
    ) as error:  # besides what is no TOML: numbers of 4301 digits, endless nesting
        raise ConfigError(f"{source} is not valid TOML: {error}") from error


def utf8(data: bytes, source: str) -> str:
    """The text of a file, a byte order mark left out. Raises ConfigError with the line that is not
    UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` counts from behind the mark, where there is one.
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        column = start - (data.rfind(b"\n", 0, start) + 1) + 1
        raise ConfigError(
            f"{source}:{line}: not UTF-8: byte 0x{data[start]:02x} at byte {column} of the line; "
            f"save the file as UTF-8"
        ) from error


def resolve_transport(config: RunConfig, *, cuda: bool) -> Literal["gloo", "nccl"]:
    """What `weights.transport` comes to for a run whose learner is on GPUs, or not; the same for
    every role.
    """
    if config.weights.transport != "auto":
        return config.weights.transport
    return "nccl" if cuda and config.generator.engine == "vllm" else "gloo"


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that every role of one run must share, by name."""
    values = flatten(json.loads(to_json(config)))
    return {key: value for key, value in values.items() if key not in ROLES_MAY_DIFFER}


def _parse_override(item: str) -> dict[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"--set {item!r}: write it as section.setting=value, such as learner.lr=1e-6"
        )
    if key in SECRETS:
        raise ConfigError(
            f"--set {key}: a command line is no place for a secret; use "
            f"SPPO_{key.upper().replace('.', '__')}"
        )
    try:
        read = tomllib.loads(f"value = {text}")
        value: Any = (
            read["value"] if len(read) == 1 else text
        )  # a line break would begin another setting
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--set {key}: {error}") from error
    return _nested(key, value)


def _merge(base: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _validate(
    values: dict[str, Any], source: str, layers: Sequence[tuple[str, dict[str, Any]]] = ()
) -> RunConfig:
    for key, value in flatten(values).items():
        if (
            isinstance(value, str)
            and not value.isascii()
            and value != value.encode(errors="replace").decode()
        ):
            shown = "" if key in SECRETS else f" = {value!r}"
            raise ConfigError(f"{key}{shown}: not UTF-8; check the terminal's locale")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, source, layers) for e in error.errors())) from error


def _explain(error: Any, source: str, layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        origins = [name for name, layer in layers if where in flatten(layer) or where in layer]
        return f"{where} (from {origins[-1] if origins else source}): no such setting{_nearest_setting(where)}"
    message = error["msg"].removeprefix("Value error, ")
    credentials = where in ("broker.url", "scorer.url") and any(
        c in str(error["input"]) for c in "@?"
    )
    hidden = isinstance(error["input"], dict) or not where or where in SECRETS or credentials
    value = "" if hidden else f" = {error['input']!r:.200}"
    quote = ", in quotes" if error["type"] == "string_type" else ""
    return f"{where or source}{value}: {message}{quote}"


def _nearest_setting(wrong: str) -> str:
    return _nearest(wrong, [*_sections(), *_keys()])


def _sections() -> list[str]:
    return [key for key in RunConfig.model_fields if key not in _keys()]


def _tables() -> list[str]:
    """Settings with keys of the user's own."""
    return [key for key in _keys() if isinstance(_default(key), dict)]


def _default(key: str) -> Any:
    section, _, name = key.rpartition(".")
    fields = (
        RunConfig.model_fields[section].annotation.model_fields
        if section
        else RunConfig.model_fields
    )  # type: ignore[union-attr]
    return fields[name].get_default(call_default_factory=True, validated_data={})


def _variable(key: str) -> str:
    return f"SPPO_{key.upper().replace('.', '__')}"


def _variables() -> list[str]:
    return [*OTHER_VARIABLES, *map(_variable, [*_sections(), *_keys()])]


def _nearest(wrong: str, known: list[str]) -> str:
    """What was probably meant, for the end of a message."""
    import difflib

    # Compared in lower case: `Learner` is nearer to `learner` than to anything else.
    names = {name.lower(): name for name in known}
    close = [
        names[name] for name in difflib.get_close_matches(wrong.lower(), names, n=2, cutoff=0.75)
    ]
    if close and close[0].lower() == wrong.lower():
        close = close[:1]
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return meant + ("" if meant else "; docs/configuration.md lists them all")


def reference() -> str:
    """Every setting with its default and meaning, as the Markdown of docs/configuration.md."""
    lines = []
    for section, field in RunConfig.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            lines.append(_row(section, field.get_default(), field.description))
            continue
        lines += ["", f"## {section}", "", "| setting | default | meaning |", "|---|---|---|"]
        lines += [
            _row(
                f"{section}.{name}",
                f.get_default(call_default_factory=True, validated_data={}),
                f.description,
            )
            for name, f in model.model_fields.items()
        ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines, ""])


def _row(name: str, default: Any, meaning: str | None) -> str:
    shown = "secret" if isinstance(default, SecretStr) else json.dumps(default)
    return f"| `{name}` | `{shown}` | {' '.join((meaning or '').split())} |"


def cpu_threads(setting: int) -> int:
    """CPU threads of one role: the setting, or every core that this process may use."""
    return setting or len(os.sched_getaffinity(0))
