"""The tiny world: a generator of scenes with true boxes, and two small vision-language models that can learn it."""
