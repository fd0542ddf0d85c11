"""What a run shows while it goes on, in wandb and in TensorBoard: metrics with their meaning, panels, pictures."""
