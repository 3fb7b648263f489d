"""Asynchronous Self-Play Preference Optimization for language models."""

from sppo import builds

__version__ = "0.1.0"

builds.hide_foreign()
