"""Attacks parts."""
