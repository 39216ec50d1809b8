"""Pruners: one way of leaving visual tokens out a file."""
