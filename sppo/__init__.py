"""Asynchronous Self-Play Preference Optimization for language models."""

__version__ = "0.1.0"
