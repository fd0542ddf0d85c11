"""Static pages that show what a run did: curves, tables, and responses with their boxes on the picture."""
