"""Generators parts."""
