"""Trunks: one file per network that turns images (B, Ch, H, W) into features (B, F)."""
