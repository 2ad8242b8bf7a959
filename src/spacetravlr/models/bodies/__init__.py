"""Kinds of coefficients: each body is fitted to a batch of targets and evaluated at any cells."""
