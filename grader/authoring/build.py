"""Make a chapter's stub, its notebook and nbgrader's notebook from the one source, the same bytes every time.

Solutions are cut out by nbgrader's own ClearSolutions, files are written by jupytext and nbformat. What the last
build wrote is remembered in `solutions/NN_name/built.json`: a file whose bytes are others was edited, and is kept.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]
import nbformat

from grader.authoring.source import PERCENT, Node, definitions, function_of, read_source, where
from grader.course import Chapter, Course, CourseError, Exercise, find_root, load_course
from grader.testing.notebook import check_cell

RECORD = "built.json"
CONFIG = Path(__file__).parent / "nbgrader_config.py.txt"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WHICH_FILE = (
    "Work here or in `exercises.py`, not in both: the file that you changed is the one that is graded. "
    "The cells with `check` run the chapter's self-checks on what you have so far."
)


@dataclass(frozen=True)
class Change:
    """What became of one file of a build: "written", "unchanged", or "kept" because it was edited by hand."""

    path: Path
    kind: str
    sentence: str


@dataclass(frozen=True)
class Product:
    """What a chapter's source gives: the bytes of each file, and the folder of nbgrader's source by file name."""

    stub: bytes
    notebook: bytes
    nbgrader: dict[str, bytes]


def build(
    course: Course, chapters: Sequence[str] | None = None, nbgrader_dest: Path | None = None, force: bool = False
) -> list[Change]:
    """Make the stub, the notebook and nbgrader's source of the chapters, all of them by default.

    Every chapter is made before any file is written, so a mistake leaves all as it was.

    Args:
        course: the course as data.
        chapters: names or numbers; None means all.
        nbgrader_dest: the folder of nbgrader's course, by default `build/nbgrader`. Solutions go there too.
        force: overwrite the stub and the notebook even if they were edited by hand.

    Raises:
        CourseError: one sentence for the author.
    """
    dest = (nbgrader_dest or course.root / "build" / "nbgrader").resolve()
    if dest.is_relative_to((course.root / "chapters").resolve()):
        raise CourseError(
            f"{dest} lies in chapters/, which students get; give nbgrader's source, with solutions, another place."
        )
    made = [(chapter, make(chapter)) for chapter in _chosen(course, chapters)]
    changes: list[Change] = []
    for chapter, product in made:
        changes += _write_chapter(course.root, chapter, product, force)
        folder = dest / "source" / chapter.name
        changes += [_write(course.root, folder / name, data) for name, data in product.nbgrader.items()]
    config = dest / "nbgrader_config.py"
    if not config.exists():  # once written it is the instructor's
        text = CONFIG.read_text(encoding="utf-8").replace(
            "{course}", repr(os.path.relpath(course.root.resolve(), dest))
        )
        changes.append(_write(course.root, config, text.encode()))
    return changes


def stale(course: Course, chapters: Sequence[str] | None = None) -> list[str]:
    """Say, one sentence each, which generated files are not what their source gives, and the command that mends it."""
    sentences: list[str] = []
    for chapter in _chosen(course, chapters):
        try:
            product = make(chapter)
        except CourseError as error:
            sentences.append(str(error))
        else:
            sentences += _stale_files(course.root, chapter, product)
    return sentences


def make(chapter: Chapter) -> Product:
    """Make the files of one chapter, without writing them. Raises CourseError for the author's mistakes."""
    source = read_source(chapter)
    cleared = _without_solutions(chapter, source)
    return Product(
        stub=_as_script(cleared).encode(),
        notebook=_as_notebook(chapter, [_markdown(WHICH_FILE), *_cells(chapter, cleared, graded=False)]),
        nbgrader={
            "exercises.ipynb": _as_notebook(chapter, list(_cells(chapter, source, graded=True))),
            **{file.name: _read_beside(file) for file in (chapter.public_tests, chapter.folder / "chapter.toml")},
        },
    )


def _read_beside(file: Path) -> bytes:
    """nbgrader hands the folder to students and back, and `check` looks beside the notebook."""
    if not file.is_file():
        raise CourseError(f"{file} is missing; the check cells of the notebook run it.")
    return file.read_bytes()


def _chosen(course: Course, chapters: Sequence[str] | None) -> list[Chapter]:
    return [course.chapter(name) for name in chapters] if chapters else list(course.chapters)


def _without_solutions(chapter: Chapter, source: Node) -> Node:
    """Cut out the solutions with nbgrader's preprocessor; a cell's stub raises with the name of its function."""
    try:
        from nbgrader.preprocessors import ClearSolutions  # type: ignore[import-untyped]
    except ImportError as error:
        raise CourseError(f"nbgrader is missing ({error}); install it with `pip install -e .[nbgrader]`.") from None
    notebook = copy.deepcopy(source)
    clear = ClearSolutions()
    for index, cell in enumerate(notebook.cells):
        name = function_of(cell)
        clear.code_stub = {"python": f'raise NotImplementedError("{name}")'}
        clear.preprocess_cell(cell, {"language": "python"}, index)
        if name and definitions(chapter.source, cell) != [name]:
            raise CourseError(
                f"{where(chapter.source, cell)} loses {name!r} with its solution; keep `def` and `class` outside."
            )
    return notebook


def _as_script(notebook: Node) -> str:
    """Write the percent script, spaced as its source is, without header or metadata."""
    plain = copy.deepcopy(notebook)
    plain.metadata.clear()
    plain.metadata["jupytext"] = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "-all"}
    for cell in plain.cells:
        cell.metadata.pop("nbgrader", None)
    text: str = jupytext.writes(plain, fmt=PERCENT)
    # Jupytext would put a cell's marker above the module's docstring, which would then not be the first line.
    return text.removeprefix("# %%\n") if plain.cells and _docstring(plain.cells[0]) else text


def _docstring(cell: Node) -> str:
    """Give the docstring if the cell is nothing else, or ""."""
    if cell.cell_type != "code":
        return ""
    tree = ast.parse(cell.source)
    return (ast.get_docstring(tree) or "") if len(tree.body) == 1 else ""


def _cells(chapter: Chapter, notebook: Node, graded: bool) -> Iterator[Node]:
    """Give the notebook's cells, with each exercise's check after the last cell of its functions."""
    last = {name: place for place, cell in enumerate(notebook.cells) if (name := function_of(cell))}
    for place, cell in enumerate(notebook.cells):
        text = _docstring(cell)
        given = {"nbgrader": cell.metadata["nbgrader"]} if graded and function_of(cell) else {}
        yield _markdown(text) if text else _cell(cell.cell_type, cell.source, function_of(cell), given)
        for exercise in chapter.exercises:
            if max(last[function] for function in exercise.functions) == place:
                yield _check(exercise, graded)


def _check(exercise: Exercise, graded: bool) -> Node:
    name = f"check_{exercise.name}"
    points = int(exercise.points) if exercise.points.is_integer() else exercise.points
    metadata = {
        "grade": True,
        "grade_id": name,
        "locked": True,
        "points": points,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    return _cell("code", check_cell(exercise.name), name, {"nbgrader": metadata} if graded else {})


def _markdown(text: str) -> Node:
    return _cell("markdown", text, "", {})


def _cell(kind: str, source: str, name: str, metadata: dict[str, Any]) -> Node:
    new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return new(source=source, metadata=metadata, id=name or "unnamed")  # type: ignore[no-untyped-call]


def _as_notebook(chapter: Chapter, cells: list[Node]) -> bytes:
    """Write the notebook; ids come from the functions' names, because random ones would differ at every build."""
    following, count = "end", 0
    for cell in reversed(cells):
        if cell.id == "unnamed":
            count += 1
            cell.id = f"{following}-{count}"
        else:
            following, count = f"before-{cell.id}", 0
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})  # type: ignore[no-untyped-call]
    notebook.nbformat_minor = 5
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise CourseError(f"{chapter.source} does not make a valid notebook: {error.message}.") from None
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return (text.rstrip("\n") + "\n").encode()


def _write_chapter(root: Path, chapter: Chapter, product: Product, force: bool) -> Iterator[Change]:
    record = _read_record(chapter)
    for path, data in _files(chapter, product):
        change = _write(root, path, data, None if force else record.get(path.name, ""))
        if change.kind == "kept":
            again = f"`grader build --force {chapter.name}` replaces it"
            change = Change(path, "kept", f"{_short(root, path)} was edited by hand and is kept; {again}.")
        else:
            record[path.name] = _digest(data)
        yield change
    yield _write(root, chapter.solutions / RECORD, _as_record(record))


def _write(root: Path, path: Path, data: bytes, last_digest: str | None = None) -> Change:
    """Write the file; with a digest, only if the file is missing or has that digest."""
    name = _short(root, path)
    if path.is_file():
        found = path.read_bytes()
        if _digest(found) == _digest(data):
            return Change(path, "unchanged", f"{name} is up to date.")
        if last_digest is not None and _digest(found) != last_digest:
            return Change(path, "kept", f"{name} was edited by hand and is kept.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Change(path, "written", f"{name} is written.")


def _stale_files(root: Path, chapter: Chapter, product: Product) -> Iterator[str]:
    record = _read_record(chapter)
    for path, data in _files(chapter, product):
        name, command = _short(root, path), f"grader build {chapter.name}"
        if not path.is_file():
            yield f"{name} is missing; run `{command}`."
        elif _digest(path.read_bytes()) == _digest(data):
            if record.get(path.name) != _digest(data):
                yield f"{_short(root, chapter.solutions / RECORD)} does not know {name}; run `{command}`."
        elif _digest(path.read_bytes()) == record.get(path.name):
            yield f"{name} is older than its source; run `{command}`."
        else:
            yield f"{name} was edited by hand; to replace it, run `grader build --force {chapter.name}`."


def _files(chapter: Chapter, product: Product) -> list[tuple[Path, bytes]]:
    return [(chapter.stub, product.stub), (chapter.notebook, product.notebook)]


def _digest(data: bytes) -> str:
    """Git may check files out with other line ends, which is no edit."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def _read_record(chapter: Chapter) -> dict[str, str]:
    file = chapter.solutions / RECORD
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise CourseError(f"{file} is damaged; delete it and run `grader build {chapter.name}`.") from None


def _as_record(record: dict[str, str]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def _short(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or say what is stale; give 1 if something is stale, kept or wrong."""
    parser = argparse.ArgumentParser(prog="grader build", description="Make stubs and notebooks from solutions/.")
    parser.add_argument("chapters", nargs="*", help="names or numbers; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is stale")
    parser.add_argument("--force", action="store_true", help="overwrite files that were edited by hand")
    parser.add_argument("--nbgrader", type=Path, help="the folder of nbgrader's course (build/nbgrader)")
    options = parser.parse_args(arguments)
    try:
        course = load_course(find_root(Path.cwd()))
        if options.check:
            sentences = stale(course, options.chapters)
            bad = bool(sentences)
        else:
            changes = build(course, options.chapters, options.nbgrader, options.force)
            sentences = [change.sentence for change in changes if change.kind != "unchanged"]
            bad = any(change.kind == "kept" for change in changes)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(sentences) or "Everything is up to date.")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
