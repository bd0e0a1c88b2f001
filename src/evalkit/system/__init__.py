"""Access to this machine: processes, files, memory and sockets."""
