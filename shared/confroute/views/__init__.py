"""Drawings and pages of values: SVG and self-contained HTML, without a plotting library or a network."""
