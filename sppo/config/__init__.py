"""Settings: a model for each section and one `RunConfig`, parsed before anything heavy is imported.

Sources in rising order: the TOML file or preset, the environment (`SPPO_OPTIMIZER__LR=1e-6`),
`--set optimizer.lr=1e-6`. Unknown keys are errors. Each default stands here and nowhere else.
"""

from sppo.config.broker import BrokerConfig, is_loopback
from sppo.config.data import ModelConfig, SamplingConfig, TaskConfig
from sppo.config.dump import identity, to_json, to_toml, with_secrets
from sppo.config.judge import JudgeConfig
from sppo.config.learner import AdapterConfig, LearnerConfig, OptimizerConfig
from sppo.config.load import from_json, load, origins
from sppo.config.names import RESUME_MAY_CHANGE, ROLES_MAY_DIFFER, SECRETS, setting
from sppo.config.objective import ObjectiveConfig
from sppo.config.reference import reference
from sppo.config.renamed import RENAMED, flatten
from sppo.config.roles import (
    EvalConfig,
    GeneratorConfig,
    LaunchConfig,
    ScorerConfig,
    WeightsConfig,
)
from sppo.config.run import RunConfig, cpu_threads
from sppo.config.shown import shown
from sppo.config.sources import presets, utf8
from sppo.config.track import MetricsConfig, TrackConfig

__all__ = [
    "RENAMED",
    "RESUME_MAY_CHANGE",
    "ROLES_MAY_DIFFER",
    "SECRETS",
    "AdapterConfig",
    "BrokerConfig",
    "EvalConfig",
    "GeneratorConfig",
    "JudgeConfig",
    "LaunchConfig",
    "LearnerConfig",
    "MetricsConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RunConfig",
    "SamplingConfig",
    "ScorerConfig",
    "TaskConfig",
    "TrackConfig",
    "WeightsConfig",
    "cpu_threads",
    "flatten",
    "from_json",
    "identity",
    "is_loopback",
    "load",
    "origins",
    "presets",
    "reference",
    "setting",
    "shown",
    "to_json",
    "to_toml",
    "utf8",
    "with_secrets",
]
