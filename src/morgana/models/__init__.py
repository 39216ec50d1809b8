"""Models parts."""
