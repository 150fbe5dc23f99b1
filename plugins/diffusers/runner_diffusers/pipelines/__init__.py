"""Knowledge of diffusers' pipelines, read from their source and the models' configs: no torch is imported."""
