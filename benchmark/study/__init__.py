"""Configuration -> objects: what a study is, what its folder holds, and the command line."""
