"""Faults injected into real runs, and what became of them."""
