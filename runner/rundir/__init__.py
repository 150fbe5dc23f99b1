"""The run directory: paths, lock, journal, and the history of runs that is read from it."""
