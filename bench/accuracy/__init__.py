"""reports/accuracy.md says how far each implementation is from truth of 60 digits, and where it breaks."""
