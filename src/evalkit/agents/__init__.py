"""The agents of evalkit."""
