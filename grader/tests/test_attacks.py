"""Attackers, graded for real at each level of isolation: each gets what it has earned, and the class goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grader.grading.run import IsolationMissing, Order, grade_class
from grader.report.files import feedback_path
from grader.sandbox.policy import LAYERS, Layer, in_force, missing, probe
from grader.tests.attacked import Scene, staged
from grader.tests.hostile import ATTACKS, PARTS, Attack, files, modules
from grader.tests.small_course import copy_course, hand_in
from grader.verdict import Verdict

HERE = probe()
HAVE = in_force(HERE)
MANDATORY = frozenset({"landlock", "seccomp", "rlimits", "process"})
LEVELS = {
    "everything": HAVE,
    "without namespaces": MANDATORY,
    "without Landlock": HAVE - {"landlock"},
    "none": frozenset(),
}
"""What a host may offer. The grader itself refuses the third, and takes the last only if it is told to."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(missing(HERE)), reason="this host cannot confine student code"
)


def is_stopped_by(attack: Attack, layers: frozenset[str]) -> bool:
    """Tell whether one of the ways in which an attack says it is stopped needs no other layer than these."""
    return any(way & frozenset(LAYERS) <= layers for way in attack.stopped_by)


@pytest.fixture(scope="module", params=LEVELS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Grade all attackers whom a level stops as one class; the others could do harm."""
    level = request.param
    attacks = [attack for attack in modules() if is_stopped_by(attack, LEVELS[level])]
    isolation = None if level == "everything" else (LEVELS[level], level)
    with staged(level, attacks, isolation) as staged_scene:
        yield staged_scene


@pytest.mark.parametrize("attack", [*modules(), *files()], ids=lambda attack: attack.name)
def test_attack_gets_what_it_has_earned(scene: Scene, attack: Attack) -> None:
    if (attack.name, attack.chapter) not in scene.outcomes:
        pytest.skip(f"{attack.name} needs {' or '.join(' and '.join(sorted(way)) for way in attack.stopped_by)}")
    exercises = scene.exercises(attack)
    assert {name: str(exercise.verdict) for name, exercise in exercises.items()} == {
        name: attack.verdict(name) for name in exercises
    }
    for name, exercise in exercises.items():
        earned = exercise.points if exercise.verdict is Verdict.PASSED else attack.score(name)
        assert exercise.score == earned, [(test.id, str(test.verdict)) for test in exercise.tests]


def test_every_attack_says_what_it_tries_and_what_stops_it() -> None:
    assert len(modules()) >= 150
    for file in ATTACKS.glob("*.py"):
        tries, expected, stopped = file.read_text(encoding="utf-8").splitlines()[:3]
        assert tries.endswith("."), file
        assert re.fullmatch(r"# \d\d_\w+: \w+ [a-z-]+( [\d.]+)?(, \w+ [a-z-]+( [\d.]+)?)*", expected), file
        assert re.fullmatch(r"# Stopped by [a-z]+((, | \+ )[a-z]+)*: .+\.", stopped), file
    for attack in modules():
        assert frozenset().union(*attack.stopped_by) <= {*LAYERS, *PARTS}, attack.name


def test_right_answers_among_the_attackers_get_full_marks(scene: Scene) -> None:
    honest = [outcome for (student, _), outcome in scene.outcomes.items() if "right" in student]
    assert len(honest) > 3 * 12
    for outcome in honest:
        assert outcome.score == outcome.points, outcome


def test_nothing_is_put_down_to_the_machine(scene: Scene) -> None:
    assert [outcome.student for outcome in scene.outcomes.values() if outcome.is_infra] == []


def test_no_secret_leaves_the_grader(scene: Scene) -> None:
    written = [file for file in scene.out.rglob("*") if file.is_file()]
    assert len(written) > 100
    for file in written:
        assert scene.token.encode() not in file.read_bytes(), file


def test_feedback_says_nothing_that_a_student_chose_after_seeing_inputs(scene: Scene) -> None:
    for student, _ in scene.outcomes:
        page = (scene.out / feedback_path(student)).read_text(encoding="utf-8")
        assert "LEAK" not in page.replace(f"`{student}`", ""), student
        assert "777777777777" not in page, student


def test_feedback_holds_no_live_words(scene: Scene) -> None:
    for page in (scene.out / "feedback").iterdir():
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), page
        assert not re.search(r"(?m)^::", text), page


def test_nothing_outside_the_scratch_folder_has_changed(scene: Scene) -> None:
    assert scene.files_after == scene.files_before
    assert not Path("/dev/shm/leak").exists()


def test_nobody_called_out(scene: Scene) -> None:
    assert scene.callers == []


def test_no_process_is_left(scene: Scene) -> None:
    assert scene.left == set()
