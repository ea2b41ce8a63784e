"""Measurements of the harness itself: `make bench`, `make bench-front`, `make bench-gpu`. Not part of the wheel."""
