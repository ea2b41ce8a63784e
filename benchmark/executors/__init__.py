"""Places where jobs run. Each has `submit(spec) -> Future` and `close()`, and knows nothing of ours."""
