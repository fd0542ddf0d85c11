"""Configuration of `python -m vgr_rl.sft`: our keys, what we set of verl's, and the hardware."""
