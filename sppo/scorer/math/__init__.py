"""The `math` scorer: whether a completion's answer equals the reference as mathematics."""
