"""The tests in the interpreter share these fixtures."""

from interpreter import fast_interpreter, many_rows  # noqa: F401 (fixtures, the first of every test)
