"""Measurements of speed, each with its limits."""
