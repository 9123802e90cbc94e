"""How far each implementation is from 60-digit truth, and where it breaks: the command behind reports/accuracy.md."""
