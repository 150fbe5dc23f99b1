"""One module per command: its options, then what it does. Heavy imports are inside the functions."""
