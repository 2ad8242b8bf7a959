"""Numbers only: numpy, scipy and numba. No AnnData, pandas or torch."""
