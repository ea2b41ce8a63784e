"""Places where units run: `submit(spec) -> Future`, and `close()`.

Specs and results are JSON; nothing of ours is below. Those that have workers take `kill(future)` as well, for a unit
that hangs. An executor neither retries nor interprets: whether a unit hangs, and whether it is tried again, is the
driver's decision. `answers`, `pool` and `serving` are what the executors share.
"""
