"""Measurements of the package: what it recovers, what it explains on real tissue, and how fast it is."""
