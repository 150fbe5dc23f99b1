"""Checks of headers, configs and ``model_index.json`` before anything is loaded. No torch."""
