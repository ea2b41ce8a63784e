#!/bin/sh
# What sbatch runs: its arguments, as they are. The worker takes this shell's place, and so its signals.
exec "$@"
