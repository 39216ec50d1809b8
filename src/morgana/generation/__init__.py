"""Generation parts."""
