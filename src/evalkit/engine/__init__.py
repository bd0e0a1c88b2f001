"""Runs attempts: the scheduler, one attempt, and admission."""
