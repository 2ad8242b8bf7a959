"""Predicted perturbations against observed ones, and against trivial rivals."""
