"""Hand-ins made from the course itself: the reference as a student's file, and the same with one function exchanged."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

from grader.course import Chapter
from grader.testing.alternatives import Alternative
from grader.testing.misconceptions import Misconception


def right_answer(chapter: Chapter) -> str:
    """Give the reference as a file to hand in."""
    return chapter.source.read_text(encoding="utf-8")


def wrong_answer(chapter: Chapter, wrong: Misconception) -> str:
    """Give the reference with one misconception put in its place, as a file to hand in."""
    return _with(chapter, chapter.misconceptions, wrong.name, wrong.replaces)


def other_answer(chapter: Chapter, other: Alternative) -> str:
    """Give the reference with one alternative put in its place, as a file to hand in."""
    return _with(chapter, chapter.alternatives, other.name, other.replaces)


def _with(chapter: Chapter, file: Path, name: str, replaces: str) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    used = _names_used(tree, name)
    kept = [node for node in tree.body if not _is_machinery(node) and (not _is_marked(node) or node.name in used)]
    for node in filter(_is_marked, kept):
        node.decorator_list = [d for d in node.decorator_list if not _is_mark(d)]
    return "\n".join(
        (
            right_answer(chapter),
            "\nimport types as _types",
            "reference = _types.SimpleNamespace(**globals())",
            *map(ast.unparse, kept),
            f"{replaces} = {name}",
            "",
        )
    )


def _names_used(tree: ast.Module, name: str) -> set[str]:
    """Give the names on which a definition stands, its own among them."""
    bodies = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    used, left = set[str](), {name}
    while left:
        current = left.pop()
        used.add(current)
        inside = ast.walk(bodies[current]) if current in bodies else ()
        left |= {node.id for node in inside if isinstance(node, ast.Name)} - used
    return used


def _is_machinery(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith(("grader", "__future__"))
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "reference" for target in node.targets)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_marked(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.ClassDef]:
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and any(map(_is_mark, node.decorator_list))


def _is_mark(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") in ("misconception", "alternative")
