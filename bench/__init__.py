"""What the losses cost and how exact they are: the benchmark suite and the commands behind reports/."""
