"""Places where units run: `submit(spec) -> Future` and `close()`. Specs and results are JSON; nothing of ours is below.

An executor neither retries nor interprets: whether a unit is tried again is the driver's decision. `answers`, `pool`
and `serving` are what the executors share.
"""
