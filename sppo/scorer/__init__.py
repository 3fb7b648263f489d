"""Scorers: rules in-process, a user's own function, and the same behind HTTP."""
