"""The command line: from arguments to a command, and from errors to exit codes."""
