"""Models in this process, the catalogue they come from, and limits around any model's calls."""
