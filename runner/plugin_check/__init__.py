"""The kit for authors of plugins: scaffolding, and checks that a plugin behaves as the engine relies on."""
