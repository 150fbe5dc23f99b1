"""Tools for plugin authors: scaffolding, and checks that a plugin behaves as the engine requires."""
