"""Corpus parts."""
