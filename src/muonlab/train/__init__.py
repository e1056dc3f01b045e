"""How cells are trained: many members as one program."""
