"""Retrievers parts."""
