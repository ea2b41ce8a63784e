"""The foundation of every other part: records on disk, errors, console output, downloads, provenance."""
