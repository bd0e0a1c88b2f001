"""The command line: arguments, commands, help, completion and exit codes."""
