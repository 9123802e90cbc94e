"""Did a change make the losses slower?  `python -m bench.compare --help` says how to ask."""
