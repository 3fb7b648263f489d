"""[scorer.judge]: the judge behind `scorer.name` = "llm-judge", and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from sppo.config.fields import (
    FREE,
    Coefficient,
    Count,
    Positive,
    Processes,
    Seconds,
    Settings,
    http_url,
)

PairMode = Literal["all", "circular", "anchors", "reference"]


class JudgeConfig(Settings):
    url: Annotated[str, FREE] = ""
    """Any OpenAI-compatible endpoint: `http://host:8000`, with its `/v1`, or the whole address of
    its `chat/completions`.
    """
    model: str = ""
    """The model's name at that endpoint."""
    api_key: SecretStr = SecretStr("")
    """Bearer key of the endpoint."""
    mode: Literal["pairwise", "rating"] = "pairwise"
    """`pairwise` compares completions and gives preferences; `rating` gives each a number."""
    rubric: str = ""
    """A text file with what the judge is asked: `{question}`, `{first}` and `{second}`, or
    `{completion}` for a rating, and any column of the row in braces. Empty takes ours.
    """
    template: str = ""
    """A JSON file with the chat messages that are sent, a list of `role` and `content`, `{rubric}`
    in one of them. Empty sends the rubric as the user's message.
    """
    compare: PairMode = "all"
    """Which pairs of a group are asked about: each; each completion with the next `opponents`;
    each with `opponents` drawn at random; each with an answer of the row, `reference`.
    """
    opponents: Annotated[int, Field(gt=0, le=1024)] = 1
    """Opponents of each completion for `compare` = "circular" and "anchors"."""
    reference: str = "answer"
    """The column whose text is the opponent for `compare` = "reference"."""
    both_orders: bool = True
    """Ask about each pair in both orders: judges favour a position."""
    logprobs: Literal["auto", "required", "off"] = "auto"
    """Probabilities from the log-probs of the verdict's tokens: where the endpoint gives them, or
    not without, or verdicts only.
    """
    samples: Annotated[int, Field(gt=0, le=256)] = 1
    """Answers to each question, of which the mean is taken; above 1 `temperature` is above 0."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Sampling temperature of the judge."""
    max_tokens: Positive = 16
    """Longest answer of the judge, in tokens: raise it where it is to reason first."""
    max_concurrency: Annotated[Processes, FREE] = 16
    """Calls of one scorer service at a time."""
    timeout_s: Annotated[Seconds, FREE] = 60.0
    """Deadline of one call. A group waits for all of its calls, and as long as the judge says that
    it is busy: `scorer.timeout_s` is not its deadline.
    """
    cache: Annotated[str, FREE] = ""
    """SQLite file with the judge's answers, by content, and what was spent. Empty: `judge.sqlite3`
    in the run directory of `up`, elsewhere in memory.
    """
    max_calls: Annotated[Count, FREE] = 0
    """Calls after which the run ends with a checkpoint, counted in `cache`; 0 for no limit."""
    max_cost: Annotated[Coefficient, FREE] = 0.0
    """The same of what they cost by `prices`."""
    prices: Annotated[tuple[Coefficient, Coefficient], FREE] = (0.0, 0.0)
    """What a million tokens cost, of prompts and of answers, in the unit of `max_cost`."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_url(value, secret="the key as SPPO_SCORER__JUDGE__API_KEY")

    @model_validator(mode="after")
    def _fits(self) -> JudgeConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples = {self.samples} with temperature = 0 would be the same answer so many "
                "times; raise temperature, or use 1"
            )
        if self.max_cost and not any(self.prices):
            raise ValueError(
                f"max_cost = {self.max_cost:g} needs prices = [for a million prompt tokens, for a "
                "million answer tokens]"
            )
        return self

    def lacks(self) -> str:
        """The settings that a judge cannot do without and that are empty; empty if none is."""
        return " and ".join(
            f"scorer.judge.{name}" for name in ("url", "model") if not getattr(self, name)
        )
