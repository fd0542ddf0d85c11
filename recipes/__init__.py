"""Recipes: one folder each, with its data, its settings and what to expect."""
