"""Reads manifests: TOML, overrides, schema, items; errors are shown with their line."""
