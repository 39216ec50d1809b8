"""Eval parts."""
