"""Studies: their configuration, their components, their folders, and the command line."""
