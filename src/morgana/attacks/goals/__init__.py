"""Goals parts."""
