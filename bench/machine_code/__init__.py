"""What there is in a kernel's machine code, and how often it runs."""
