"""Stages parts."""
