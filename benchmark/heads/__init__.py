"""Heads: one file per map from trunk features (B, F) to embeddings (B, D)."""
