"""Runs as commands see them: executed, resumed, graded again, summarised."""
