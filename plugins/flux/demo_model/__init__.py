"""Trains the demo model, a tiny FLUX checkpoint that draws coloured shapes from captions."""
