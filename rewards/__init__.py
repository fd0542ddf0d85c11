"""Rewards: pure functions of a parsed response and its sample. Needs neither torch nor Ray."""
