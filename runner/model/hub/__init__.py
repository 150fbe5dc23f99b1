"""Models on the Hugging Face hub: lists of files, headers without weights, downloads, damaged files."""
