"""Images as registries know them: their names, who may ask for them, and whether they exist."""
