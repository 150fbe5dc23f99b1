"""Where each stage's weights will live, and the peaks that this predicts, before anything is loaded."""
