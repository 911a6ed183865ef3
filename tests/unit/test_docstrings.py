"""Every string that stands alone documents something."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import rain_deploy

ROOT = Path(rain_deploy.__file__).parents[1]
SOURCES = sorted(path for room in ("rain_deploy", "tests") for path in (ROOT / room).rglob("*.py"))


def _stray_strings(tree: ast.Module) -> Iterator[int]:
    """Lines of strings that are neither a docstring nor the documentation of the attribute before them."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for parent in ast.walk(tree):
        for body in (getattr(parent, field, None) for field in ("body", "orelse", "finalbody")):
            if not isinstance(body, list):
                continue
            if body and _is_string(body[0]) and not isinstance(parent, documented):
                yield body[0].lineno
            for before, statement in pairwise(body):
                if _is_string(statement) and not isinstance(before, ast.Assign | ast.AnnAssign):
                    yield statement.lineno


def _is_string(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def test_no_string_is_thrown_away() -> None:
    stray = [(str(path), line) for path in SOURCES for line in _stray_strings(ast.parse(path.read_bytes()))]
    assert stray == []


@pytest.mark.parametrize("body", ["del a; 'late docstring'", "if a:\n        'no docstring'"])
def test_a_stray_string_is_found(body: str) -> None:
    assert list(_stray_strings(ast.parse(f"def f(a):\n    {body}\n")))
