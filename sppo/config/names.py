"""The names of settings: all, those that may change or differ, and what a wrong one meant."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sppo.config.run import RunConfig

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


def keys() -> list[str]:
    """Every setting as section.setting."""
    found = []
    for section, field in RunConfig.model_fields.items():
        model = field.annotation
        nested = isinstance(model, type) and issubclass(model, BaseModel)
        found += [f"{section}.{name}" for name in model.model_fields] if nested else [section]  # type: ignore[union-attr]
    return found


def sections() -> list[str]:
    return [key for key in RunConfig.model_fields if key not in keys()]


def tables() -> list[str]:
    """Settings with keys of the user's own."""
    return [key for key in keys() if isinstance(default(key), dict)]


def default(key: str) -> Any:
    """The default of a setting."""
    section, _, name = key.rpartition(".")
    model = RunConfig.model_fields[section].annotation if section else RunConfig
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model.model_fields[name].get_default(call_default_factory=True, validated_data={})


def variable(key: str) -> str:
    return f"SPPO_{key.upper().replace('.', '__')}"


def variables() -> list[str]:
    return [*OTHER_VARIABLES, *map(variable, [*sections(), *keys()])]


def nearest_setting(wrong: str) -> str:
    return nearest(wrong, [*sections(), *keys()])


def nearest(wrong: str, known: list[str]) -> str:
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
