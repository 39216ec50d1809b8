"""How vectors are searched: one kind of index a file."""
