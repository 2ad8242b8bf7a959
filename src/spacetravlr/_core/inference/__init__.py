"""Null distributions, tests and false discovery rates."""
