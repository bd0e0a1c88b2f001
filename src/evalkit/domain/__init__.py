"""What a run is made of and how it is decided: no I/O, and nothing of ours from outside."""
