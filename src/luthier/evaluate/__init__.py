"""Evidence: what a model answers before and after training, and whether the difference is chance."""
