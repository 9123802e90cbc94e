"""Shared parts of the examples that compare losses over many trainings."""
