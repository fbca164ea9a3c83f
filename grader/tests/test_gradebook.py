"""Scores in nbgrader's database, read back through nbgrader's own API and commands."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook  # type: ignore[import-untyped]

from grader.authoring.build import build
from grader.course import Course, load_course
from grader.gradebook.nbgrader import GradebookError, write_scores
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.tests.databases import Server, everything, postgresql

FIXTURE = Path(__file__).parent / "course_fixture"
ROOT = Path(__file__).parents[2]
COURSE = load_course(FIXTURE)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gradebook of no students: nbgrader takes seconds to make one."""
    file = tmp_path_factory.mktemp("empty") / "gradebook.db"
    write_scores([], COURSE, f"sqlite:///{file}")
    return file


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server with an empty gradebook."""
    with postgresql() as running:
        write_scores([], COURSE, running.create("empty"))
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty gradebook in a database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(request.getfixturevalue('empty'), tmp_path)}"
    copy: str = request.getfixturevalue("server").create(tmp_path.name, "empty")
    return copy


@contextmanager
def opened(url: str) -> Iterator[Any]:
    with Gradebook(url) as gradebook:
        yield gradebook


def outcome(student: str, chapter: str, *scores: float, verdict: Verdict = Verdict.WRONG) -> Outcome:
    exercises = COURSE.chapter(chapter).exercises
    results = (
        ExerciseOutcome(exercise.name, exercise.points, score, verdict, "", "", "", ())
        for exercise, score in zip(exercises, scores, strict=True)
    )
    return Outcome(student, COURSE.chapter(chapter).name, tuple(results))


def nbgrader(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("nbgrader")), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_scores_arrive(url: str) -> None:
    said = write_scores(
        [outcome("ann", "01", 2, 0.75), outcome("ann", "02", 4, 6), outcome("ben", "01", 0, 3)], COURSE, url
    )
    assert said.startswith(f"3 hand-ins of 2 students are in the gradebook {url.partition('://')[0]}://")
    with opened(url) as gradebook:
        assert [assignment.name for assignment in gradebook.assignments] == ["01_numbers", "02_shapes"]
        assert gradebook.find_assignment("01_numbers").max_score == 5
        grade = gradebook.find_grade("check_mean", "exercises", "01_numbers", "ann")
        assert (grade.auto_score, grade.max_score, grade.needs_manual_grade) == (0.75, 3, False)
        assert gradebook.find_submission("01_numbers", "ann").score == 2.75
        assert gradebook.find_student("ann").score == 12.75
        assert gradebook.find_submission("01_numbers", "ben").needs_manual_grade is False
        assert [s.student_id for s in gradebook.assignment_submissions("02_shapes")] == ["ann"]


def test_no_command_is_needed_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    url = f"sqlite:///{tmp_path / 'new.db'}"
    write_scores([outcome("ann", "01", 2, 3)], COURSE, url)
    assert os.environ["PATH"] == "/nowhere"
    with opened(url) as gradebook:
        assert gradebook.find_student("ann").score == 5


def test_writing_again_changes_nothing(url: str) -> None:
    outcomes = [outcome("ann", "01", 2, 0.75), outcome("ben", "02", 1, 2)]
    write_scores(outcomes, COURSE, url)
    before = everything(url)
    write_scores(outcomes, COURSE, url)
    assert everything(url) == before
    assert len(before["grade"]) == 4 and len(before["comment"]) == 4


def test_a_new_score_replaces_the_old_one_and_nothing_else(url: str) -> None:
    write_scores([outcome("ann", "01", 2, 0.75), outcome("ben", "01", 1, 1)], COURSE, url)
    with opened(url) as gradebook:
        gradebook.find_grade("check_double", "exercises", "01_numbers", "ann").manual_score = 1.5
        gradebook.find_grade("check_mean", "exercises", "01_numbers", "ann").extra_credit = 0.25
        gradebook.find_comment("mean", "exercises", "01_numbers", "ann").manual_comment = "well done"
        gradebook.grant_extension("01_numbers", "ann", days=2)
        gradebook.update_or_create_student("ann", first_name="Ann")
        gradebook.db.commit()
    write_scores([outcome("ann", "01", 0, 3)], COURSE, url)
    with opened(url) as gradebook:
        double = gradebook.find_grade("check_double", "exercises", "01_numbers", "ann")
        assert (double.auto_score, double.manual_score, double.score) == (0, 1.5, 1.5)
        assert double.needs_manual_grade is True
        assert gradebook.find_grade("check_mean", "exercises", "01_numbers", "ann").score == 3.25
        assert gradebook.find_comment("mean", "exercises", "01_numbers", "ann").comment == "well done"
        assert gradebook.find_submission("01_numbers", "ann").extension.days == 2
        assert gradebook.find_student("ann").first_name == "Ann"
        assert gradebook.find_submission("01_numbers", "ben").score == 2


def test_what_fails_midway_is_rolled_back(url: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:  # the last of a student's rows cannot be written
        connection.execute(text("ALTER TABLE comment RENAME COLUMN cell_id TO gone"))
    engine.dispose()
    before = everything(url)
    with pytest.raises(GradebookError, match="cannot be used: .*cell_id") as caught:
        write_scores([outcome("ann", "01", 2, 3)], COURSE, url)
    assert "\n" not in str(caught.value)
    after = everything(url)
    for table in ("student", "submitted_assignment", "submitted_notebook", "grade"):
        assert after[table] == before[table] == []


def test_what_the_machine_failed_to_grade_is_left_out(url: str) -> None:
    infra = outcome("ann", "01", 0, 0, verdict=Verdict.INFRA)
    said = write_scores([outcome("ben", "01", 2, 3), infra], COURSE, url)
    assert said.endswith("; 1 that the machine failed to grade are left out.")
    with opened(url) as gradebook:
        assert [student.id for student in gradebook.students] == ["ben"]


def test_a_rejected_hand_in_waits_for_a_person(url: str) -> None:
    write_scores([Outcome("ann", "01_numbers", (), problem="The file is empty.")], COURSE, url)
    with opened(url) as gradebook:
        submission = gradebook.find_submission("01_numbers", "ann")
        assert (submission.score, submission.needs_manual_grade) == (0, True)


def test_the_later_of_two_results_counts(url: str) -> None:
    write_scores([outcome("ann", "01", 2, 3), outcome("ann", "01", 1, 1)], COURSE, url)
    with opened(url) as gradebook:
        assert gradebook.find_student("ann").score == 2


def test_a_new_exercise_and_new_points_reach_old_submissions(url: str, tmp_path: Path) -> None:
    def only_first(root: Path) -> Course:
        toml = root / "chapters" / "01_numbers" / "chapter.toml"
        text = toml.read_text(encoding="utf-8")
        toml.write_text("[[exercises]]".join(text.split("[[exercises]]")[:2]), encoding="utf-8")
        return load_course(root)

    smaller = only_first(shutil.copytree(FIXTURE, tmp_path / "course"))
    ann, ben = outcome("ann", "01", 2, 1), outcome("ben", "01", 2, 3)
    write_scores([Outcome("ann", "01_numbers", ann.exercises[:1])], smaller, url)
    write_scores([ben], COURSE, url)
    with opened(url) as gradebook:
        assert gradebook.find_assignment("01_numbers").max_score == 5
        added = gradebook.find_grade("check_mean", "exercises", "01_numbers", "ann")
        assert (added.auto_score, added.needs_manual_grade) == (None, True)
        assert gradebook.find_student("ben").score == 5


def test_nbgrader_can_generate_and_export_after_scores_are_there(url: str, tmp_path: Path) -> None:
    nb = tmp_path / "nb"
    course = load_course(shutil.copytree(FIXTURE, tmp_path / "course"))
    build(course, ["01"], nbgrader_dest=nb)
    write_scores([outcome("ann", "01", 0.5, 0.5)], course, url)
    generated = nbgrader(nb, "generate_assignment", "01_numbers", "--db", url)
    assert generated.returncode == 0, generated.stderr
    write_scores([outcome("ann", "01", 1, 0.5)], course, url)
    exported = nbgrader(nb, "export", "--db", url)
    assert exported.returncode == 0, exported.stderr
    rows = (nb / "grades.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 and rows[1].startswith("01_numbers,") and ",ann," in rows[1] and ",1.5,5.0" in rows[1]


def test_a_large_class_is_written_right(url: str) -> None:
    outcomes = [outcome(f"s{n}", "01", n % 3, (n % 7) / 7 * 3) for n in range(700)]
    write_scores(outcomes, COURSE, url)
    with opened(url) as gradebook:
        scores = {s["student"]: s["score"] for s in gradebook.submission_dicts("01_numbers")}
    assert scores == pytest.approx({o.student: o.score for o in outcomes}, abs=1e-5)
    assert len(scores) == 700


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("gradebook.db", "'gradebook.db' is not a database's URL; write one like sqlite:///gradebook.db."),
        ("nosuch://host/db", "is not a database's URL"),
        ("sqlite:////nowhere/at/all.db", "cannot be used: unable to open database file; check its URL and rights."),
    ],
)
def test_a_bad_url_is_a_sentence(bad: str, sentence: str) -> None:
    with pytest.raises(GradebookError) as caught:
        write_scores([outcome("ann", "01", 2, 3)], COURSE, bad)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "gradebook.db"
    file.write_text("student,score\n" * 100, encoding="utf-8")
    with pytest.raises(GradebookError, match="cannot be used: file is not a database"):
        write_scores([outcome("ann", "01", 2, 3)], COURSE, f"sqlite:///{file}")


def test_the_short_form_of_the_url_will_do(server: Server) -> None:
    url = server.create("short", "empty").replace("postgresql+psycopg://", "postgresql://")
    said = write_scores([outcome("ann", "01", 2, 3)], COURSE, url)
    assert "1 hand-ins of 1 students are in the gradebook postgresql" in said


def test_a_server_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(GradebookError, match="cannot be used: connection .* check its URL and rights") as caught:
        write_scores([], COURSE, f"postgresql+psycopg://teacher:secret@/grades?host={tmp_path}")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_missing_driver_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(GradebookError, match=r"install it with `pip install -e .\[postgresql\]`"):
        write_scores([], COURSE, f"{scheme}://teacher@localhost/grades")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(GradebookError) as caught:
        write_scores([], COURSE, "postgresql+nodriver://teacher:secret@localhost/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.5, 2.5])
def test_an_impossible_score_is_refused_before_anything_is_written(url: str, score: float) -> None:
    with pytest.raises(GradebookError, match="ann's result of 01_numbers/double is .* of 2 points"):
        write_scores([outcome("ben", "01", 2, 3), outcome("ann", "01", score, 0)], COURSE, url)
    with opened(url) as gradebook:
        assert gradebook.students == []


def test_a_result_of_another_course_is_refused(url: str) -> None:
    with pytest.raises(GradebookError, match="no chapter '09_other', of which ann has a result"):
        write_scores([Outcome("ann", "09_other", ())], COURSE, url)
    strange = ExerciseOutcome("halve", 1, 1, Verdict.PASSED, "", "", "", ())
    with pytest.raises(GradebookError, match="01_numbers/halve is not of this course"):
        write_scores([Outcome("ann", "01_numbers", (strange,))], COURSE, url)


def test_without_nbgrader_the_extra_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "grader.gradebook.database", raising=False)
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(GradebookError, match=r"install it with `pip install -e .\[nbgrader\]`"):
        write_scores([], COURSE, url)
