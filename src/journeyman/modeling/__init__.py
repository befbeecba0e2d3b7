"""Torch: base models, weights, LoRA, attention over prefix trees, token log-probabilities, device policy."""
