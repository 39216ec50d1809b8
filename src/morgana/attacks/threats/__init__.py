"""Threats parts."""
