"""Experiments: the tables and figures of the papers, each described by a file of `experiments/`.

`spec` reads a file and turns it into studies; `published` holds the numbers that the papers print.
"""
