"""The harness: losses, data sets, protocol and the stories that `make` runs."""
