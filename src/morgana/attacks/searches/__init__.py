"""Searches parts."""
