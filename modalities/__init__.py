"""The media: one folder each, how it becomes latents and back, and what may be asked of it."""
