"""Token log-probs from hidden states and the head, without the logits."""
