"""This machine: what evalkit asks of it and does on it, whatever is evaluated."""
