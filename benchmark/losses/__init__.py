"""Losses: one file each, a pure function of (embeddings, labels, its vectors, settings) and a module that owns them."""
