"""Everything one run needs, and the checks across its sections."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sppo.config import checks
from sppo.config.broker import BrokerConfig, is_loopback
from sppo.config.data import ModelConfig, SamplingConfig, TaskConfig
from sppo.config.fields import ON_RESUME, Settings
from sppo.config.learner import AdapterConfig, LearnerConfig, OptimizerConfig
from sppo.config.objective import ObjectiveConfig
from sppo.config.roles import (
    EvalConfig,
    GeneratorConfig,
    LaunchConfig,
    ScorerConfig,
    WeightsConfig,
)
from sppo.config.track import MetricsConfig, TrackConfig

HANG_LEAST_S, HANG_DEADLINES = 90.0, 5


class RunConfig(Settings):
    """Everything one run needs. `SPPO_<ROLE>__<SETTING>` in the environment overrides the file."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Names the run: its directory by default, and its keys in the broker."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the order of prompts and of sampling; below 2^32, where the seeds of the engines
    end.
    """
    compute: Annotated[Literal["auto", "bfloat16", "float32"], ON_RESUME] = "auto"
    """Number format in which learner and engines compute and weights travel: `auto` takes bfloat16
    on GPUs and on CPUs that multiply it (AVX512_BF16, AMX), float32 elsewhere. Master weights and
    checkpoints are float32 all the same.
    """
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    sampling: SamplingConfig = SamplingConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    adapter: AdapterConfig = AdapterConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    learner: LearnerConfig = LearnerConfig()
    generator: GeneratorConfig = GeneratorConfig()
    scorer: ScorerConfig = ScorerConfig()
    broker: BrokerConfig = BrokerConfig()
    weights: WeightsConfig = WeightsConfig()
    eval: EvalConfig = EvalConfig()
    launch: LaunchConfig = LaunchConfig()
    track: TrackConfig = TrackConfig()
    metrics: MetricsConfig = MetricsConfig()

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
        if self.generator.engine == "transformers" and self.generator.vllm:
            raise ValueError(
                f"generator.vllm.{next(iter(self.generator.vllm))}: generator.engine = "
                "'transformers' does not read it; leave it out"
            )
        if self.generator.engine == "transformers" and self.weights.transport == "nccl":
            raise ValueError(
                "weights.transport = 'nccl': generator.engine = 'transformers' receives weights "
                "over gloo; use "
                "'gloo' or 'auto'"
            )
        if self.weights.transport == "shared" and not is_loopback(self.weights.host):
            raise ValueError(
                f"weights.transport = 'shared': weights.host = {self.weights.host!r} is for "
                "generators of other machines, which have no memory with the learner; use 'auto', "
                "or a loopback address"
            )
        if self.scorer.url and self.scorer.mode != "http":
            raise ValueError(f"scorer.url = {self.scorer.url!r} needs scorer.mode = 'http'")
        return self

    @model_validator(mode="after")
    def _one_gpu_is_one(self) -> RunConfig:
        if self.launch.share_gpu:
            checks.one_gpu(self.learner.ranks, self.generator, self.weights)
        if self.launch.take_turns:
            checks.turns(self.launch, self.generator)
        checks.machines_to_come(self.launch, self.learner.device)
        return self

    @model_validator(mode="after")
    def _learning_fits(self) -> RunConfig:
        objective, optimizer, learner = self.objective, self.optimizer, self.learner
        checks.read(objective)
        checks.adapters(self.adapter)
        checks.temperature(objective, self.sampling)
        checks.iterations(objective, optimizer, learner)
        checks.completions(objective, self.sampling)
        return self

    @property
    def hang_timeout_s(self) -> float:
        """How long a role may live and get nothing done; a weight sync may rightly take three
        deadlines.
        """
        return max(HANG_LEAST_S, HANG_DEADLINES * self.weights.phase_timeout_s)

    @property
    def rank_deadline_s(self) -> float:
        """How long ranks of the learner wait in a step for one that does not get on: it is named
        before the learner itself is taken for hung.
        """
        return self.hang_timeout_s / 2

    @property
    def policy_temperature(self) -> float:
        """What the learner divides logits by before it takes log-probs to train on."""
        given = self.objective.temperature
        return self.sampling.temperature if given == "sampling" else given


def cpu_threads(setting: int) -> int:
    """CPU threads of one role: the setting, or every core that this process may use."""
    return setting or len(os.sched_getaffinity(0))
