"""Models in this process, the catalogue to download them from, and limits around calls of any model."""
