"""Hydra configuration of the command line entries."""
