"""The SPPO loss and what it is made of, from token log-probs."""
