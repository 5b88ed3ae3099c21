"""Pages that are one file: plots as SVG and what every report has in common."""
