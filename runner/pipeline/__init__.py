"""A manifest bound to plugins: stages, their parameters, and which output each input takes."""
