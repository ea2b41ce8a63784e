"""Units of work, the executors that run them, and their retries, heartbeats and logs."""
