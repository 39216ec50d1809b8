"""Defenses parts."""
