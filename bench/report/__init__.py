"""A run of the benchmark suite becomes its page, its figures and the README's blocks."""
