"""Tests of whether signals from neighbours are reflected in the expression of cells."""
