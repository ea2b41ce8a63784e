"""Samplers: one file per rule for which images make a batch."""
