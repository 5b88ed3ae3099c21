"""Models: this machine, loading, quantizing, attention over trees, and the methods that tune them."""
