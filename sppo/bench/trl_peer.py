"""TRL's side of `sppo-cli bench loop`: its GRPOTrainer on the same questions, in a process of its
own.

    python -m sppo.bench.trl_peer FOLDER        # FOLDER/job.json says what to do

FOLDER gets `metrics.jsonl` (`step`, `wall_s`) and `events.jsonl`, with the names that a run
directory of ours has.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sppo import config as settings
from sppo import models
from sppo.config import RunConfig, cpu_threads
from sppo.metrics import JsonLines
from sppo.scorer.base import SCORERS
from sppo.tasks import questions
from sppo.tasks.order import Order
from sppo.tasks.questions import Question, Questions

TRAINED_TOGETHER = 16
"""Completions in one forward and backward: no slower than all 64 of a step, in half of the
memory.
"""
EVALUATED_TOGETHER = 64
"""Held-out prompts in one call of `generate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the trainer is to do."""

    config: str
    """A RunConfig as JSON, its `compute` decided: task, model, sampling, batch, optimizer, rule
    come from it.
    """
    steps: int
    every_steps: int
    """Steps between evaluations on the held-out questions, if the task has any."""


def write(job: Job, path: Path) -> None:
    """For the process that reads it."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


def main(folder: Path) -> None:
    """Train as the folder's job says."""
    job = Job(**json.loads((folder / "job.json").read_text(encoding="utf-8")))
    config = settings.from_json(job.config)
    threads = cpu_threads(config.learner.threads)
    # Before torch is imported.
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(threads)
    found = questions.load(config.task, config.seed)
    trainer = GRPOTrainer(
        model=models.resolve(config.model),
        args=GRPOConfig(**arguments(config, job.steps, folder)),
        train_dataset=Dataset.from_list(rows(config, found)),
        reward_funcs=reward(config),
    )
    trainer.add_callback(_diary(folder, job, config, found))
    trainer.train()


def arguments(config: RunConfig, steps: int, folder: Path) -> dict[str, Any]:
    """Of GRPOConfig: the run's settings, and what makes the trainer fast on a CPU.

    One optimizer step is the run's whole batch, sampled at once; there is no KL term, so no
    reference model; no layer is computed twice, and nothing is logged or saved. Sampling is
    Transformers' plain `generate`; its continuous batching is slower on a CPU, and vLLM under TRL
    does not work there (docs/bench.md).
    """
    learner, optimizer, sampling = config.learner, config.optimizer, config.sampling
    completions = learner.groups_per_step * sampling.completions
    together = math.gcd(completions, TRAINED_TOGETHER)
    return {
        "output_dir": str(folder / "out"),
        # Weights stay float32, as our master weights do: 98 in 100 of the default model's would not
        # be changed by an update of 1e-5 if they were bf16.
        "model_init_kwargs": {"dtype": "float32", "attn_implementation": "sdpa"},
        "use_cpu": True,
        "bf16": config.compute == "bfloat16",
        "fp16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": completions // together,
        "num_generations": sampling.completions,
        "max_completion_length": sampling.max_tokens,
        "temperature": sampling.temperature,
        "beta": 0.0,
        "learning_rate": optimizer.lr,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": optimizer.warmup_steps,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "max_steps": steps,
        "seed": config.seed,
        "shuffle_dataset": False,  # the rows lie in the order in which our run takes them
        "dataloader_pin_memory": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def rows(config: RunConfig, found: Questions) -> list[dict[str, Any]]:
    """The questions of the run's first pass in its order, as conversations."""
    return [
        # As JSON: the data of two questions need not have the same columns.
        {"prompt": _conversation(question), "data": json.dumps(dict(question.data))}
        for question in map(Order(found, config.seed).question, range(len(found.train)))
    ]


def reward(config: RunConfig) -> Any:
    """The run's rule as TRL calls it: a reward for each of many prompts and completions."""
    rule: Any = SCORERS[config.scorer.name]

    def score(
        prompts: Sequence[Any], completions: Sequence[Any], data: Sequence[str], **_: Any
    ) -> list[float]:
        return [
            float(rule(prompt[-1]["content"], [completion[-1]["content"]], json.loads(about))[0])
            for prompt, completion, about in zip(prompts, completions, data, strict=True)
        ]

    return score


def _conversation(question: Question) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in question.messages]


def _diary(folder: Path, job: Job, config: RunConfig, found: Questions) -> Any:
    """A callback that writes down when a step ended, and evaluates."""
    from transformers import TrainerCallback

    metrics, events = JsonLines(folder / "metrics.jsonl"), JsonLines(folder / "events.jsonl")
    started = time.monotonic()

    class Diary(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            events.append(
                {"time": time.time(), "kind": "phase", "phase": "waiting for the first batch"}
            )

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any, processing_class: Any, **_: Any
        ) -> None:
            metrics.append({"step": state.global_step, "wall_s": time.monotonic() - started})
            if found.held_out and (
                state.global_step % job.every_steps == 0 or state.global_step == job.steps
            ):
                accuracy = evaluate(model, processing_class, config, found.held_out)
                record = {"step": state.global_step, "accuracy": accuracy, "n": len(found.held_out)}
                events.append({"time": time.time(), "kind": "eval", "record": record})

    return Diary()


def evaluate(model: Any, tokenizer: Any, config: RunConfig, held_out: Sequence[Question]) -> float:
    """Share of right answers among greedy completions of the held-out questions."""
    import torch

    rule: Any = SCORERS[config.scorer.name]
    right = 0
    model.eval()
    for start in range(0, len(held_out), EVALUATED_TOGETHER):
        batch = held_out[start : start + EVALUATED_TOGETHER]
        inputs = tokenizer.apply_chat_template(
            [_conversation(q) for q in batch], add_generation_prompt=True, return_dict=True,
            return_tensors="pt",
            padding=True, padding_side="left",
        )  # fmt: skip
        with torch.no_grad():
            ids_BL = model.generate(
                **inputs, max_new_tokens=config.sampling.max_tokens, do_sample=False
            )
        texts = tokenizer.batch_decode(
            ids_BL[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right += sum(rule(q.text, [t], q.data)[0] >= 1.0 for q, t in zip(batch, texts, strict=True))
    model.train()
    return right / len(held_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
