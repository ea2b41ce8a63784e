"""One model, trained on one fold."""
