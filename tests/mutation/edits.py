"""Every small edit of a file that may break it: comparisons, signs, indices, constants, masks, choices."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_NAMES = {"min": "max", "minimum": "maximum", "max": "min", "maximum": "minimum"}
_FACTOR = 2


class Edit(NamedTuple):
    file: Path
    line: int
    before: str
    after: str
    start: int  # of the edited part, in bytes of the file
    end: int

    def apply(self, root: Path) -> None:
        """Edit the file below a root."""
        path = root / self.file
        text = path.read_bytes()
        path.write_bytes(text[: self.start] + f"({self.after})".encode() + text[self.end :])


def edits(file: Path) -> Iterator[Edit]:
    """Edits of expressions in functions; a statement keeps its lines, so that the others keep their numbers."""
    text = file.read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _expressions(ast.parse(text)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(text[start:end].decode().split())
        for edited in _edited(node):
            yield Edit(file, node.lineno, before, ast.unparse(edited), start, end)


def _expressions(tree: ast.Module) -> Iterator[ast.expr]:
    """The nodes are those that functions compute; types, messages of errors and targets of assignments are left out."""
    waiting: list[ast.AST] = [
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for statement in node.body
    ]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp) and ast.Tuple in map(type, (node.left, node.right)):
            waiting += [node.left, node.right]  # tuples are only put together
            continue
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.FunctionDef):
            continue
        if isinstance(getattr(node, "ctx", None), ast.Store):
            continue
        if isinstance(node, ast.expr):
            yield node
        annotation = getattr(node, "annotation", None)
        waiting += [child for child in ast.iter_child_nodes(node) if child is not annotation]


def _edited(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _OPERATORS:
            yield _with(node, ops=[_OPERATORS[type(operator)]()])
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(operator)]())
            if isinstance(operator, ast.BitAnd):  # of two masks, or of a mask and bits
                yield node.left
                yield node.right
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=float()):
            yield ast.Constant(_FACTOR * node.value or 1.0)
        case ast.Subscript(slice=ast.Name() | ast.BinOp() as index):
            yield _with(node, slice=ast.BinOp(index, ast.Add(), ast.Constant(1)))
        case ast.Call(func=ast.Attribute(attr=name)) if name in _NAMES:
            yield _with(node, func=_with(node.func, attr=_NAMES[name]))
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            yield _with(node, func=ast.Name(_NAMES[name]))
        case ast.Call(func=ast.Attribute(attr="where"), args=[condition, this, that]):
            yield _with(node, args=[condition, that, this])
        case ast.Call(func=ast.Attribute(attr="load" | "store")):
            unmasked = [x for x in node.keywords if x.arg not in ("mask", "other")]
            if len(unmasked) < len(node.keywords):
                yield _with(node, keywords=unmasked)


def _with(node: ast.expr, **fields: object) -> ast.expr:
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})
