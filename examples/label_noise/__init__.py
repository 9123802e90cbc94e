"""The parts of `examples/label_noise.py`."""
