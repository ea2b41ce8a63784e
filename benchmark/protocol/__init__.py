"""The papers as pure functions: class-disjoint folds, retrieval metrics, statistics. Arrays in, arrays out."""
