"""A harness for deep metric learning: losses, data sets, protocols and the commands that run them."""
