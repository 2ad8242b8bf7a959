"""Where cells lie: neighbours, weights, niches and spatial folds."""
