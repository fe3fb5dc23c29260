"""Pictures and pages: SVG and self-contained HTML, without a plotting library or a network."""
