"""Moments over the positions of maps: what the spatial estimator rests on."""
