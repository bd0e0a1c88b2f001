"""Finds relative links in Markdown files that lead nowhere."""
