"""Explainers: one way of saying which parts of the image an answer rests on a file."""
