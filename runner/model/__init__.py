"""Models: the files they are loaded from, headers, shapes, quantised weights, fingerprints; on the hub too."""
