"""Launch configurations beside those of the table, each timed as the kernel alone."""
