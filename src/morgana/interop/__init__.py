"""Interop parts."""
