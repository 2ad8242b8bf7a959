"""From a fitted model to perturbed tissues and screens."""
