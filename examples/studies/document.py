"""A report in Markdown: text, tables and figures."""

from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

WIDE = 400  # so that no cell is wrapped


def to_markdown(table: Table) -> str:
    text = StringIO()
    Console(file=text, width=WIDE, color_system=None, force_terminal=False).print(table)
    return "\n".join(map(str.rstrip, text.getvalue().splitlines())).strip("\n")


class Document:
    """Collects text and saves figures; `write` puts all of it into `name`.md in `out`."""

    def __init__(self, out: Path, name: str, title: str, command: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._name, self._title = out, name, title
        self._marker = f"<!-- Written by {command} from here on; what stands above is kept. -->"
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        self._parts += parts

    def draw(self, figure: Figure, suffix: str, description: str) -> None:
        file = f"{self._name}-{suffix}.png"
        figure.savefig(self._out / file, dpi=200)
        self.add(f"![{description}]({file})")

    def write(self) -> Path:
        """Return the page."""
        path = self._out / f"{self._name}.md"
        kept = (
            path.read_text(encoding="utf-8").partition(self._marker)[0]
            if path.exists()
            else f"# {self._title}\n\n"
        )
        text = "\n\n".join(part.strip("\n") for part in [self._marker, *self._parts])
        path.write_text(f"{kept}{text}\n", encoding="utf-8")
        return path
