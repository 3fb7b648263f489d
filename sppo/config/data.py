"""[model], [task], [sampling]: what is trained, on which prompts, and how completions are drawn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sppo.config.fields import FREE, Count, Name, Positive, Settings, Table, plain_table
from sppo.limits import MAX_COMPLETIONS, MAX_FRAME


class ModelConfig(Settings):
    name: Name = "smollm2-135m"
    """A local folder in Hugging Face format, a hub id, or `smollm2-135m` (shipped inside a
    package).
    """
    revision: str = ""
    """Hub revision to pin; empty takes the default branch."""
    export_dtype: Annotated[Literal["base", "bfloat16", "float16", "float32"], FREE] = "base"
    """Number format of the exported weights; `base` is that of the model the run began with."""


class TaskConfig(Settings):
    name: Name = "reasoning-gym:chain_sum"
    """`reasoning-gym:<dataset>`, or `jsonl:<file>` with `question` and `answer` on each line."""
    params: Table = Field(default_factory=dict)
    """Arguments of the reasoning-gym dataset, such as `min_terms`."""
    prompt: Name = "{question}"
    """User message; fields in braces are the entry's columns, and the fields of its `metadata`. A
    `question` that is a list of chat messages keeps them; the prompt is then made from its last
    message.
    """

    @field_validator("params", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain_table(value)

    pool: Positive = 6000
    """Entries drawn from a procedural dataset before repeated prompts are dropped."""
    held_out: Count = 200
    """Distinct prompts held out for evaluation, chosen by a hash of the question (of the whole
    prompt, where `task.prompt` names other columns of a file); 0 for no evaluation.
    """
    max_prompt_tokens: Positive = 1024
    """A longer prompt is refused before anything starts."""


class SamplingConfig(Settings):
    completions: Annotated[int, Field(gt=0, le=MAX_COMPLETIONS)] = 8
    """K, completions per prompt: at least 2, or 1 with `objective.target` = "batch_softmean"."""
    temperature: float = Field(1.0, ge=0.01, le=1e3)
    """Sampling temperature; the learner divides its logits by the same number. vLLM raises any
    below 0.01 to it.
    """
    max_tokens: Positive = 512
    """Longest completion in tokens."""

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
