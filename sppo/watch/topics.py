"""What is warned of: when, what it likely comes from, and which setting to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One line of the table in docs/watch.md."""

    when: str
    """By which figure, over which time."""
    cause: str
    """What it likely comes from; a judge that knows more says that instead."""
    setting: str
    """What to look at."""

    @property
    def advice(self) -> str:
        """For the end of a warning, behind its figure."""
        return f"{self.cause}; {self.setting}"


TOPICS: Mapping[str, Topic] = {
    "mismatch": Topic(
        "the mean of the 3 newest measurements is 3 times that of the first 3, and above a quarter "
        "of `learner.parity_threshold`",
        "engine and learner drift apart as the weights change",
        "compute = 'float32' or a smaller optimizer.lr shows whether rounding does it; the run "
        "ends where the threshold is passed three times in a row",
    ),
    "parity": Topic(
        "one measurement is above `learner.parity_threshold`",
        "said with the warning, by where in completions the difference lies",
        "what the warning names",
    ),
    "effective sample size": Topic(
        "below 0.5 in a step, by the ratios before their cap",
        "the batch is far from the policy",
        "lower learner.lookahead_steps, or look at the mismatch",
    ),
    "equal scores": Topic(
        "of the groups of the last 10 batches 90 % had nothing but equal scores",
        "the task is too easy or too hard for this model, or the scorer does not tell its answers "
        "apart",
        "look at `sppo-cli samples`, then at task, scorer.name, sampling.completions and "
        "learner.refill",
    ),
    "lengths": Topic(
        "completions of the last 10 batches are twice, or half, as long as those of the first 10",
        "the scorer may pay for length, or for brevity",
        "compare `sppo-cli samples --sort length` with the scores; "
        "objective.length_normalize, sampling.max_tokens",
    ),
    "truncation": Topic(
        "every completion of a step ended at `sampling.max_tokens`, or 20 % more of them over 10 "
        "batches than in the first 10",
        "completions outgrow their limit, or the model does not end its turns",
        "raise sampling.max_tokens, or look at the ends of `sppo-cli samples`",
    ),
    "learner starves": Topic(
        "half of the time of the last 10 batches the learner waited for groups",
        "sampling is the slower side",
        "more generators (`sppo-cli scale generators=N`), generator.max_groups, or a lower "
        "sampling.max_tokens",
    ),
    "scorer slow": Topic(
        "30 % of the time of the last 10 batches the learner waited for groups, and more than half "
        "of those in hand were with the scorer",
        "the scorer, or the judge behind it, is the slower side",
        "more of them (`sppo-cli scale scorers=N`), scorer.judge.max_concurrency, or a judge that "
        "answers faster",
    ),
    "generators idle": Topic(
        "over 2 minutes generators had work for less than half of their time",
        "training is the slower side",
        "raise learner.lookahead_steps if staleness may grow, have fewer generators, or more "
        "learner.ranks",
    ),
    "broker": Topic(
        "groups in the queue take 80 % of `broker.max_bytes` or `broker.max_groups`, where "
        "generators are held back",
        "groups come faster than they are trained, or a checkpoint is long in coming",
        "raise broker.max_bytes (and the server's maxmemory), or checkpoint more often "
        "(learner.checkpoint_every)",
    ),
    "clocks": Topic(
        "the clocks of two machines are 2 s apart",
        "their time is not kept by the same server",
        "run chrony or another NTP client on both: times of logs, events and traces do not compare",
    ),
    "staleness": Topic(
        "groups were older than `learner.max_staleness` and are made again",
        "sampling takes longer than the steps that a group may be old",
        "raise learner.max_staleness, or lower learner.lookahead_steps",
    ),
    "skipped": Topic(
        "an optimizer step was left out, as loss or gradient were not finite",
        "said with the warning",
        "optimizer.lr, optimizer.max_skipped",
    ),
    "export": Topic(
        "rounding to `model.export_dtype` left less than half of what was trained",
        "the changes are smaller than the number format's steps",
        "model.export_dtype = 'float32'; the checkpoint has all of it",
    ),
    "disk": Topic(
        "RUN/groups, RUN/samples.jsonl or RUN/spans.jsonl cannot be written",
        "training goes on without it",
        "free some disk space, or set learner.keep_groups or learner.keep_samples to 0",
    ),
}


def table() -> str:
    """Markdown, for docs/watch.md."""
    rows = [f"| {name} | {t.when} | {t.cause} | {t.setting} |" for name, t in TOPICS.items()]
    return "\n".join(["| topic | when | likely cause | look at |", "|---|---|---|---|", *rows])
