#!/bin/sh
# sbatch runs this: it replaces the shell by the command in its arguments, which then receives the signals itself.
exec "$@"
