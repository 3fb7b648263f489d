"""Asynchronous Self-Play Preference Optimization for language models."""

from sppo import builds

__version__ = "0.2.0.dev0"

builds.hide_foreign()
