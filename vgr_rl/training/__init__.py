"""The glue to verl: trainer mode, reward manager, agent loop, guards, checkpoints, preflight."""
