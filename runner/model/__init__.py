"""Models: the files of their components, headers, shapes, quantised weights, fingerprints; on the hub too."""
