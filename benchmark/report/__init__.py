"""Progress and tables, made from records."""
