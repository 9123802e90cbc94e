"""What the tests in the interpreter share."""

from interpreter import fast_interpreter, many_rows  # noqa: F401 (fixtures, the first of every test)
