"""Makes outputs again from the provenance records in them, and compares."""
