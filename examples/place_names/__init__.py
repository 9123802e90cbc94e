"""The parts of `examples/place_names.py`."""
