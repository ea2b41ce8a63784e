"""Units of work on their way through workers."""
