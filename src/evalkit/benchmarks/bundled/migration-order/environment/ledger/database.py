"""Opening the books."""

import os
import sqlite3

from .migrations import load, migrate

SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sql")


def open_database(path):
    """A connection to the database at *path*, brought up to date."""
    connection = sqlite3.connect(path)
    migrate(connection, load(SQL))
    return connection
