"""Models on disk and on the hub: which files, their headers, damage, downloads, fingerprints."""
