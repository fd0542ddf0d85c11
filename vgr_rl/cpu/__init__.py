"""verl on machines without an accelerator: platform, FSDP engine and vLLM worker extension."""
