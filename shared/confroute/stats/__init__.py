"""Statistics: arrays in, values out; nothing here knows of models or calls."""
