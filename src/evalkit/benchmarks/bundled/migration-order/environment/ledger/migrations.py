"""Brings databases up to date."""

import os
import re
from typing import NamedTuple

_FILE_NAME = re.compile(r"([0-9]+)_([a-z0-9_]+)\.sql")


class MigrationError(Exception):
    """The migrations themselves are in disorder."""


class Migration(NamedTuple):
    """One change of the schema."""

    number: int
    name: str
    sql: str


def load(folder):
    """The migrations in *folder*, in the order in which they are applied."""
    migrations = []
    for file_name in sorted(os.listdir(folder)):
        match = _FILE_NAME.fullmatch(file_name)
        if match:
            with open(os.path.join(folder, file_name), encoding="utf-8") as file:
                migrations.append(Migration(int(match[1]), match[2], file.read()))
    return migrations


def migrate(connection, migrations):
    """Apply the *migrations* that the database does not have yet; their numbers."""
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    known = {number for (number,) in connection.execute("SELECT number FROM migrations")}
    applied = []
    for migration in migrations:
        if migration.number in known:
            continue
        with connection:
            connection.executescript(migration.sql)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (migration.number, migration.name))
        known.add(migration.number)
        applied.append(migration.number)
    return applied
