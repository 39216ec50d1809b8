"""Encoders parts."""
