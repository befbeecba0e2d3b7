"""Trainers compute gradients: samples, advantages, prefix-tree packing, losses, the LoRA trainer. They know no engine and no store."""
