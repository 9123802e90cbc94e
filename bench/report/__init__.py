"""From a run of the benchmark suite to its page, its figures and the README's blocks."""
