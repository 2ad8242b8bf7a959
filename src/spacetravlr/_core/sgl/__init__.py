"""Sparse group lasso on cross products."""
