"""Files on disk: atomic writes, hand-offs, safetensors headers, provenance records, the cache folder."""
