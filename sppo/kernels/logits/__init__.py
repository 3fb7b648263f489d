"""Token log-probs from logits that exist already."""
