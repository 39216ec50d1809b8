"""Index parts."""
