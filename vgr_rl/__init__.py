"""Train vision-language models to reason with evidence that can be checked."""
