"""Accounts and what was posted to them."""

from .book import balance, open_account, post
from .database import open_database
from .migrations import Migration, MigrationError, load, migrate

__all__ = ["Migration", "MigrationError", "balance", "load", "migrate", "open_account", "open_database", "post"]
