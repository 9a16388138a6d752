"""Races: designs trained in turns on a user's data, until one is better or the time is over."""
