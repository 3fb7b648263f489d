"""What the sections that say how is learned must agree on. Each check raises ValueError with the
setting, its value and the mend.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sppo.config.data import SamplingConfig
from sppo.config.learner import AdapterConfig, LearnerConfig, OptimizerConfig
from sppo.config.objective import ObjectiveConfig
from sppo.config.objectives import GROUPED, ITERATES, READS, SAMPLER, WHOLE_BATCH, having, unread
from sppo.config.roles import GeneratorConfig, LaunchConfig, WeightsConfig


def changed(section: BaseModel) -> dict[str, Any]:
    """Settings of a section that are other than their defaults."""
    fields = type(section).model_fields
    values = {name: getattr(section, name) for name in fields}
    return {
        name: value
        for name, value in values.items()
        if value != fields[name].get_default(call_default_factory=True, validated_data={})
    }


def one_gpu(ranks: int, generator: GeneratorConfig, weights: WeightsConfig) -> None:
    """Refuse what one GPU that learner and generators share cannot do."""
    for setting, value, mend in (
        ("learner.ranks", ranks, ranks > 1 and "set it to 1"),
        (
            "generator.tensor_parallel",
            generator.tensor_parallel,
            generator.tensor_parallel > 1 and "set it to 1",
        ),
        ("generator.vllm", generator.vllm, generator.devices > 1 and "it asks for several GPUs"),
        (
            "weights.transport",
            weights.transport,
            weights.transport == "nccl" and "NCCL takes a GPU once; use 'gloo' or 'auto'",
        ),
    ):
        if mend:
            raise ValueError(
                f"{setting} = {value!r}: launch.share_gpu = true puts learner and generators on "
                f"one GPU; {mend}, or leave share_gpu out"
            )


def turns(launch: LaunchConfig, generator: GeneratorConfig) -> None:
    """Refuse turns where nobody shares, or an engine cannot sleep."""
    if not launch.share_gpu:
        raise ValueError(
            "launch.take_turns = true: it is for a GPU that learner and generators share; set "
            "launch.share_gpu = true, or leave take_turns out"
        )
    if generator.engine != "vllm":
        raise ValueError(
            f"generator.engine = {generator.engine!r}: launch.take_turns = true has the engine "
            "sleep, which only 'vllm' does; use it, or leave take_turns out"
        )


def machines_to_come(launch: LaunchConfig, device: str) -> None:
    """Refuse to choose by what is there before all of it is."""
    if launch.ray_address and launch.room_wait_s and device == "auto":
        raise ValueError(
            "learner.device = 'auto': launch.room_wait_s lets machines come, with GPUs or without; "
            "set 'cuda' or 'cpu'"
        )


def read(objective: ObjectiveConfig) -> None:
    """Refuse settings that the objective does not read."""
    given = changed(objective)
    for setting in unread(objective.name, given):
        readers = [name for name, known in READS.items() if setting in known]
        raise ValueError(
            f"objective.{setting} = {given[setting]!r}: objective.name = {objective.name!r} does "
            f"not read it ({' and '.join(readers) or 'one of your own'} would); leave it out"
        )
    if objective.reference_every and not objective.may_have_reference:
        raise ValueError(
            f"objective.reference_every = {objective.reference_every}: objective.name = "
            f"{objective.name!r} has no reference here; set objective.kl_coef, or leave it out"
        )


def adapters(adapter: AdapterConfig) -> None:
    """Refuse settings of adapters where there are none."""
    for setting, value in changed(adapter).items() if not adapter.rank else ():
        raise ValueError(
            f"adapter.{setting} = {value!r}: adapter.rank = 0 trains the whole model and does not "
            "read it; set adapter.rank, or leave it out"
        )


def temperature(objective: ObjectiveConfig, sampling: SamplingConfig) -> None:
    """Refuse log-probs at another temperature where the sampler's are divided by them."""
    if objective.temperature in ("sampling", sampling.temperature):
        return
    for wrong in having(objective, objective.name, SAMPLER):
        mend = "another" if wrong == "anchor" else "'none'"
        raise ValueError(
            f"objective.temperature = {objective.temperature}: objective.{wrong} = "
            f"{getattr(objective, wrong)!r} compares log-probs with those of sampling.temperature "
            f"= {sampling.temperature}; use {mend} there, or objective.temperature = 'sampling'"
        )


def iterations(
    objective: ObjectiveConfig, optimizer: OptimizerConfig, learner: LearnerConfig
) -> None:
    """An iteration ends between two batches."""
    lasting = having(objective, objective.name, ITERATES)
    counted = lasting or objective.reference_every or optimizer.restart
    if counted and objective.iteration_steps % learner.steps_per_batch:
        raise ValueError(
            f"learner.{learner.per_batch} must divide objective.iteration_steps = "
            f"{objective.iteration_steps}"
        )


def completions(objective: ObjectiveConfig, sampling: SamplingConfig) -> None:
    """Most objectives compare the completions of one prompt."""
    if objective.name not in READS or sampling.completions > 1:
        return
    what = f"objective.name = {objective.name!r}"
    if objective.name in GROUPED:
        if having(objective, objective.name, WHOLE_BATCH) and objective.link == "none":
            return
        what = f"objective.target = {objective.target!r} with objective.link = {objective.link!r}"
    raise ValueError(
        f"sampling.completions = {sampling.completions}: {what} compares the completions of one "
        "prompt; use 2 or more"
    )
