"""Runs a pipeline's own, unmodified ``__call__`` in each stage, with what other stages do replayed.

Each stage calls the pipeline from its first line with the same arguments. Components of other stages are
*shells*, without weights. What the encoders returned is recorded in the encode stage and played back in the
later ones; the denoising loop is run through again with zeros for the denoiser's results, up to the state
that was saved; and the first call of a component of a later stage ends the stage.
"""
