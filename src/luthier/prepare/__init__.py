"""Data before training: what a model would read of it."""
