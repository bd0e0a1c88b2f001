"""A plugin package, installed for the tests by being on the path."""
