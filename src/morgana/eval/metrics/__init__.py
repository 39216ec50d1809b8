"""Metrics: small parts that map outcomes to one value each, named by their repr (`Hit(5)`, `TokenF1()`)."""
