"""Files of items and of results: pictures, clips and sound. Imports no torch."""
