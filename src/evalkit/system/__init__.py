"""The machine underneath: files, processes, memory, temporary folders."""
