"""Images with the agent baked in."""
