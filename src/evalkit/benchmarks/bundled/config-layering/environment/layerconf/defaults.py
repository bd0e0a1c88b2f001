"""What holds when nobody says otherwise."""

DEFAULTS = {
    "database": {"host": "localhost", "port": 5432, "pool": {"size": 5, "timeout": 30}},
    "logging": {"level": "INFO", "handlers": ["console"]},
    "features": {"beta": False},
}
