"""A run in TensorBoard, Weights & Biases, trackio and MLflow.

Each tracker has a process of its own that reads what the run writes (metrics.jsonl, samples.jsonl,
events.jsonl) and knows what it has passed on: RUN/track/<tracker>.json. So no tracker can hold up
training or end it, and one that comes back goes on where it was.

    follower.py   what is new in the files, each step and evaluation once
    shape.py      figures by name, samples as rows
    tracker.py    what a tracker does, and which there are
    process.py    the process: follow, try again, say once that something is wrong
"""
