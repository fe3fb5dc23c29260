"""Statistics that everything else stands on: arrays in, values out."""
