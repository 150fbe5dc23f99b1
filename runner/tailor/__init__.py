"""Manifests for other hardware: new ones made from a plugin's template, existing ones rewritten."""
