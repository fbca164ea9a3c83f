"""The stub, the notebook and nbgrader's source, made from the one source."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from grader.authoring.build import build, main, stale
from grader.course import Course, CourseError, load_course

FIXTURE = Path(__file__).parent / "course_fixture"
ROOT = Path(__file__).parents[2]
BUILT = ("exercises.py", "exercises.ipynb")


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course of sources, with nothing built yet."""
    shutil.copytree(FIXTURE, tmp_path / "course")
    for folder in (tmp_path / "course" / "chapters").iterdir():
        for name in BUILT:
            (folder / name).unlink()
        (tmp_path / "course" / "solutions" / folder.name / "built.json").unlink()
    return load_course(tmp_path / "course")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def contents(course: Course) -> dict[str, bytes]:
    files = [path for path in course.root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(course.root).as_posix(): path.read_bytes() for path in files}


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stub_of_{file.parent.name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_notebook(file: Path) -> Any:
    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def nbgrader_cells(course: Course, chapter: str) -> dict[str, Any]:
    notebook = read_notebook(course.root / "build" / "nbgrader" / "source" / chapter / "exercises.ipynb")
    marked = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {metadata.grade_id: metadata for metadata in marked}


def solution_lines(source: Path) -> set[str]:
    lines, inside = set(), False
    for line in map(str.strip, source.read_text(encoding="utf-8").splitlines()):
        if line.endswith("SOLUTION"):
            inside = line == "### BEGIN SOLUTION"
        elif inside:
            lines.add(line)
    return lines


def test_two_builds_give_the_same_bytes(course: Course, tmp_path: Path) -> None:
    other = load_course(shutil.copytree(course.root, tmp_path / "other"))
    build(course)
    command = [sys.executable, "-m", "grader.authoring.build"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    subprocess.run(command, cwd=other.root, env=environment, check=True, capture_output=True)
    assert contents(course) == contents(other)


def test_nothing_changes_when_built_again(course: Course) -> None:
    assert {change.kind for change in build(course)} == {"written"}
    before = contents(course)
    assert {change.kind for change in build(course)} == {"unchanged"}
    assert contents(course) == before
    assert stale(course) == []


def test_the_fixture_is_built_from_its_sources() -> None:
    assert stale(load_course(FIXTURE)) == []


@pytest.mark.parametrize("file", BUILT)
def test_no_line_of_a_solution_reaches_the_student(course: Course, file: str) -> None:
    build(course)
    for chapter in course.chapters:
        text = (chapter.folder / file).read_text(encoding="utf-8")
        secret = solution_lines(chapter.source)
        assert len(secret) >= 4
        assert [line for line in secret if line in text or json.dumps(line)[1:-1] in text] == []
        assert "SOLUTION" not in text


def test_the_stub_is_to_do(course: Course) -> None:
    build(course)
    numbers, shapes = (load(chapter.stub) for chapter in course.chapters)
    with pytest.raises(NotImplementedError, match="^double$"):
        numbers.double(1)
    counter = shapes.Counter()
    for call in (lambda: counter.add(["a"]), lambda: counter.most_common(1), counter.shares):
        with pytest.raises(NotImplementedError, match="^Counter$"):
            call()
    assert numbers.NO_NUMBERS and counter.counts == {}


def test_the_stub_is_the_source_but_for_the_solutions(course: Course) -> None:
    build(course)
    for chapter in course.chapters:
        stub, source = (file.read_text(encoding="utf-8").splitlines() for file in (chapter.stub, chapter.source))
        secret = solution_lines(chapter.source)
        given = [line for line in source if line.strip() not in secret and not line.endswith("SOLUTION")]
        assert [line for line in stub if "raise NotImplementedError" not in line] == given
        assert ast.get_docstring(ast.parse("\n".join(stub))) == f"Chapter {int(chapter.number)}: {chapter.title}."
        assert stub[0].startswith('"""')


def test_the_stub_is_formatted(course: Course) -> None:
    build(course)
    ruff = Path(sys.executable).with_name("ruff")
    stubs = [str(chapter.stub) for chapter in course.chapters]
    subprocess.run([ruff, "format", "--check", "--isolated", "--line-length=120", *stubs], check=True)


def test_the_notebook_has_a_check_after_each_exercise(course: Course) -> None:
    build(course)
    notebook = read_notebook(course.chapter("01").notebook)
    assert notebook.metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert "the one that is graded" in notebook.cells[0].source
    ids = [cell.id for cell in notebook.cells if not cell.id.startswith("before-")]
    assert ids == ["double", "check_double", "mean", "check_mean"]
    check = next(cell for cell in notebook.cells if cell.id == "check_mean")
    assert check.source.splitlines()[-1] == 'check("mean")'


def test_a_comment_that_looks_like_a_command_stays_a_comment(course: Course) -> None:
    chapter = course.chapter("01")
    edit(chapter.source, "NO_NUMBERS =", "# cat of all heads\n# %time is not kept\nNO_NUMBERS =")
    build(course)
    assert "\n# cat of all heads\n# %time is not kept\n" in chapter.stub.read_text(encoding="utf-8")
    sources = [cell.source for cell in read_notebook(chapter.notebook).cells]
    assert any(source.startswith("# cat of all heads\n# %time") for source in sources)


def test_nbgrader_gets_its_metadata_and_the_files_beside(course: Course) -> None:
    build(course)
    cells = nbgrader_cells(course, "02_shapes")
    assert list(cells) == ["rows_sum_to_one", "check_rows_sum_to_one", "Counter", "check_Counter"]
    common = {"schema_version": 3, "task": False}
    assert cells["Counter"] == {**common, "grade_id": "Counter", "grade": False, "locked": False, "solution": True}
    graded = {"grade": True, "locked": True, "solution": False, "points": 6}
    assert cells["check_Counter"] == {**common, **graded, "grade_id": "check_Counter"}
    folder = course.root / "build" / "nbgrader" / "source" / "02_shapes"
    beside = {path.name for path in folder.iterdir()}
    assert beside == {"exercises.ipynb", "test_exercises.py", "chapter.toml"}


def test_an_exercise_without_a_function_of_its_own_is_checked_too(course: Course) -> None:
    toml = course.chapter("01").folder / "chapter.toml"
    table = toml.read_text(encoding="utf-8").split("[[exercises]]")[2]
    table = table.replace('name = "mean"', 'name = "mean_speed"\nfunctions = ["mean"]')
    toml.write_text(toml.read_text(encoding="utf-8") + "\n[[exercises]]" + table, encoding="utf-8")
    build(load_course(course.root), ["01"])
    assert list(nbgrader_cells(course, "01_numbers"))[-3:] == ["mean", "check_mean", "check_mean_speed"]


@pytest.mark.parametrize("file", BUILT)
def test_an_edited_file_is_kept(course: Course, file: str) -> None:
    build(course)
    chapter = course.chapter("01")
    edited = chapter.folder / file
    edit(edited, "raise NotImplementedError", "return 2 * x  #")
    mine = edited.read_bytes()
    edit(chapter.source, "The smallest exercise", "The very smallest exercise")
    kept = [change for change in build(course) if change.kind == "kept"]
    assert [change.sentence for change in kept] == [
        f"chapters/01_numbers/{file} was edited by hand and is kept; `grader build --force 01_numbers` replaces it."
    ]
    assert edited.read_bytes() == mine
    untouched = chapter.folder / BUILT[1 - BUILT.index(file)]
    assert "The very smallest exercise" in untouched.read_text(encoding="utf-8")
    assert stale(course) == [
        f"chapters/01_numbers/{file} was edited by hand; to replace it, run `grader build --force 01_numbers`."
    ]
    build(course, ["01"], force=True)
    assert stale(course) == []


def test_a_file_of_unknown_origin_is_kept(course: Course) -> None:
    stub = course.chapter("01").stub
    stub.write_text("mine = 1\n", encoding="utf-8")
    build(course)
    build(course)
    assert stub.read_text(encoding="utf-8") == "mine = 1\n"


def test_other_line_ends_are_no_edit(course: Course) -> None:
    build(course)
    chapter = course.chapter("01")
    chapter.stub.write_bytes(chapter.stub.read_bytes().replace(b"\n", b"\r\n"))
    assert stale(course) == []
    edit(chapter.source, "The smallest exercise", "The very smallest exercise")
    assert {change.kind for change in build(course)} == {"written", "unchanged"}
    assert stale(course) == []


def test_what_is_stale_is_said_with_the_command(course: Course) -> None:
    build(course)
    chapter = course.chapter("01")
    edit(chapter.source, "The smallest exercise", "The very smallest exercise")
    chapter.notebook.unlink()
    assert stale(course) == [
        "chapters/01_numbers/exercises.py is older than its source; run `grader build 01_numbers`.",
        "chapters/01_numbers/exercises.ipynb is missing; run `grader build 01_numbers`.",
    ]


def test_only_the_chapters_named_are_built(course: Course) -> None:
    build(course, ["02"])
    assert [chapter.stub.exists() for chapter in course.chapters] == [False, True]


MISTAKES = [
    ("    ### END SOLUTION\n\n\n# %% [markdown]", "\n\n# %% [markdown]", "without '### END SOLUTION'"),
    ("    ### BEGIN SOLUTION\n", "", "'### END SOLUTION' where '### BEGIN SOLUTION' is expected"),
    ("    ### BEGIN SOLUTION\n", "    # begin solution\n", "'# begin solution' where '### BEGIN SOLUTION'"),
    ("    ### END SOLUTION\n", "    ### BEGIN SOLUTION\n", "'### BEGIN SOLUTION' where '### END SOLUTION'"),
    ("# The total, shared out evenly.\n\n\n# %%\n", "\n", "defines double, mean; give each a cell of its own"),
    ("def double", "def twice", "has a solution but no exercise; name 'twice' in chapter.toml"),
    ("# The smallest exercise there is.", "# ### BEGIN SOLUTION\n# 2 x\n# ### END SOLUTION", "but no exercise"),
    ("    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION\n", "    return 2 * x\n", "has no solution"),
    ("def double(x: float) -> float:", "def double(x: float -> float:", "is not valid Python"),
    ("# %%\nNO_NUMBERS", '# %% {"tags": [broken}\nNO_NUMBERS', "words after its `# %%`"),
    ("# %%\nNO_NUMBERS", '# %% tags=["x"]\nNO_NUMBERS', "words after its `# %%` (tags)"),
    ("# %%\ndef double", "# %%\n### BEGIN SOLUTION\ndef double", "is expected"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES)
def test_a_mistake_of_the_author_is_said_in_a_sentence(course: Course, old: str, new: str, sentence: str) -> None:
    chapter = course.chapter("01")
    if "give each" in sentence:
        edit(chapter.source, "# %% [markdown]\n# ## The average: `mean`\n#\n", "")
    edit(chapter.source, old, new)
    before = contents(course)
    with pytest.raises(CourseError) as caught:
        build(course)
    message = str(caught.value)
    assert sentence in message and str(chapter.source) in message and "\n" not in message
    assert contents(course) == before
    assert message in stale(course)


def test_a_solution_that_holds_its_own_function_is_a_mistake(course: Course) -> None:
    chapter = course.chapter("01")
    edit(chapter.source, "    ### BEGIN SOLUTION\n", "")
    edit(chapter.source, "# %%\ndef double", "# %%\n### BEGIN SOLUTION\ndef double")
    edit(chapter.source, "    ### END SOLUTION\n", "### END SOLUTION\n")
    with pytest.raises(CourseError, match="loses 'double' with its solution"):
        build(course)


def test_a_function_that_no_cell_defines_is_a_mistake(course: Course) -> None:
    edit(course.chapter("01").folder / "chapter.toml", 'functions = ["double"]', 'functions = ["double", "halve"]')
    with pytest.raises(CourseError, match="no cell defines 'halve', a function of .*chapter.toml"):
        build(load_course(course.root))


def test_a_function_that_two_cells_define_is_a_mistake(course: Course) -> None:
    source = course.chapter("01").source
    text = source.read_text(encoding="utf-8")
    cell = text[text.index("# %%\ndef double") : text.index("# %% [markdown]\n# ## The average")]
    source.write_text(text + "\n\n" + cell, encoding="utf-8")
    with pytest.raises(CourseError, match="more than one cell defines 'double'"):
        build(course)


def test_a_missing_file_is_named(course: Course) -> None:
    chapter = course.chapter("02")
    chapter.public_tests.unlink()
    with pytest.raises(CourseError, match="02_shapes/test_exercises.py is missing"):
        build(course)
    chapter.source.unlink()
    with pytest.raises(CourseError, match="solutions/02_shapes/exercises.py is missing"):
        build(course)


def test_solutions_are_not_put_where_students_look(course: Course) -> None:
    with pytest.raises(CourseError, match="give nbgrader's source, with solutions, another place"):
        build(course, nbgrader_dest=course.root / "chapters" / "nbgrader")


def test_the_command_says_what_it_did(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(course.root)
    assert main(["--check", "01"]) == 1
    assert "chapters/01_numbers/exercises.py is missing; run `grader build 01_numbers`." in capsys.readouterr().out
    assert main(["01"]) == 0
    assert "build/nbgrader/source/01_numbers/exercises.ipynb is written." in capsys.readouterr().out
    assert main(["--check", "01"]) == 0
    assert capsys.readouterr().out == "Everything is up to date.\n"
    edit(course.chapter("01").stub, "raise NotImplementedError", "return 2 * x  #")
    assert main(["01"]) == 1
    assert "was edited by hand and is kept" in capsys.readouterr().out
    assert main(["--force", "01"]) == 0
    assert main(["99"]) == 1
    assert "'99' names no chapter" in capsys.readouterr().err
