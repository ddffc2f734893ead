"""Which channels to remove: every criterion on trained networks, at equal size, recovery and budget."""
