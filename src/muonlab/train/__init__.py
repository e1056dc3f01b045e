"""Training of many members as one program."""
