"""Manifests cut to the measure of other hardware: new ones from a plugin's template, old ones rewritten."""
