"""Defenses: a part around a part, of the type of what it defends."""
