"""Interventions parts."""
