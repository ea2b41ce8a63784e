"""Records -> progress and tables."""
