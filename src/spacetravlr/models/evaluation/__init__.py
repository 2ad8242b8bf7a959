"""Compare predicted perturbations with observed ones and with simple baselines."""
