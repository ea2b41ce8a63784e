"""What every part rests on: records on disk, errors, the console, downloads, provenance."""
