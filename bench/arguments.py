"""The commands of bench/ read their arguments."""

import argparse
import re

from bench.ahead_of_time import Case


class Parser(argparse.ArgumentParser):
    """Its description is the docstring of a command, as it is written."""

    def __init__(self, command: str, description: str | None) -> None:
        usage = argparse.RawDescriptionHelpFormatter
        super().__init__(command, description=description, formatter_class=usage)

    def matching(self, cases: list[Case], pattern: str) -> list[Case]:
        found = [case for case in cases if re.search(pattern, str(case))]
        if not found:
            self.error(f"no case matches {pattern!r}")
        return found
