"""Retrieval parts."""
