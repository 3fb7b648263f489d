"""`llm-judge`: completions compared, or rated, by a model behind an OpenAI-compatible endpoint.

scorer     which questions a group makes, and what its answers add up to
asking     one question to its verdict: cache, limits, log-probs or words
patience   one call until it is answered: places, retries, "later"
endpoint   one call: HTTP, and what may come back
prompts    rubric and template, verdicts the words and log-probs, store the cache
"""
