"""Generators: lease tickets, sample, have the completions scored, push groups."""
