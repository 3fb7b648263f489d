"""The learner: claims groups, takes optimizer steps, publishes weights, checkpoints."""
