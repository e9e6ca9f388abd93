"""Children of a base model: how far they are from it, and how variants are made of its weights without training."""
