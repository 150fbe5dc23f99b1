"""The commands with their options, a module a group. What they do is imported when they run."""
