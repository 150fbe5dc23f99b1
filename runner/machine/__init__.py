"""The machine: its memory and limits, its cores, and the speeds and timings measured on it."""
