"""Coefficient surfaces: basis functions, evidence and their fit."""
