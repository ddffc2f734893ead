"""Coverage of the bounds on what was lost: each alone, and through the complete search."""
