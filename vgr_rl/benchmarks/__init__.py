"""Held-out evaluation: serve a model, score what it writes, summarise and compare."""
