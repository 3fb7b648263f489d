"""Hurting a real run by a plan, and counting what became of its tickets."""
