"""What an agent did: one event a line, as it happens, and what can be made of it."""
