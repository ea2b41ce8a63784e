"""The evaluation protocol as pure functions of arrays: class-disjoint folds, retrieval metrics, statistics, seeds."""
