"""The benchmark suite and the commands behind reports/ measure what the losses cost and how exact they are."""
