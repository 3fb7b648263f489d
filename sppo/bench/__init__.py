"""Benchmarks and laboratories behind `sppo-cli bench`."""
