"""Attackers, graded for real at each level of isolation: each gets what it has earned, and the class goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grader.grading.isolation import IsolationMissing
from grader.grading.run import Order, grade_class
from grader.report.files import feedback_path
from grader.sandbox.policy import LAYERS, in_force, missing, probe
from grader.tests.attacked import Scene, staged
from grader.tests.hostile import ATTACKS, PARTS, Attack, files, modules
from grader.tests.small_course import copy_course, hand_in, reference
from grader.verdict import Verdict

HERE = probe()
HAVE = in_force(HERE)
LEVELS = {
    "everything": HAVE,
    "without namespaces": frozenset({"landlock", "seccomp", "rlimits", "process"}),
    "none": frozenset(),
}
ALONE = ("namespaces", "landlock", "rlimits", "process", "seccomp")
FIVE_SECONDS = "deny_import_loop"
"""Loading has a time of its own that no setting shortens: once is enough."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(missing(HERE)), reason="this host cannot confine student code"
)


def reason_to_skip(attack: Attack, level: str) -> str:
    """Say why an attack is not made at a level, or ""."""
    if not any(way & frozenset(LAYERS) <= LEVELS[level] for way in attack.stopped_by):
        return "its layers are not in force, so it could do what it wants to this host"
    if level == "none" and attack.name.startswith("deny_"):
        return "it would take this host's processors, memory or disk, which nothing limits"
    return "takes five seconds" if attack.name == FIVE_SECONDS and level != "everything" else ""


@pytest.fixture(scope="module", params=LEVELS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Grade all attackers of a level as one class."""
    level = request.param
    attacks = [attack for attack in modules() if not reason_to_skip(attack, level)]
    with staged(level, attacks, None if level == "everything" else LEVELS[level]) as graded:
        yield graded


@pytest.fixture(scope="module", params=[name for name in ALONE if name in HAVE])
def alone(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Grade, with one layer in force and no other, the attackers that this layer is said to stop alone."""
    layer = frozenset({request.param})
    with staged(request.param, stopped_by(request.param), layer, jobs=1, with_files=False) as graded:
        yield graded


def stopped_by(layer: str) -> list[Attack]:
    return [attack for attack in modules() if {layer} in attack.stopped_by]


def check(scene: Scene, attack: Attack) -> None:
    """Hold an attack's verdicts and points to what its file says."""
    exercises = scene.exercises(attack)
    assert {name: str(exercise.verdict) for name, exercise in exercises.items()} == {
        name: attack.verdict(name) for name in exercises
    }, attack.name
    for name, exercise in exercises.items():
        earned = exercise.points if exercise.verdict is Verdict.PASSED else attack.score(name)
        assert exercise.score == earned, [(test.id, str(test.verdict)) for test in exercise.tests]


@pytest.mark.parametrize("attack", [*modules(), *files()], ids=lambda attack: attack.name)
def test_attack_gets_what_it_has_earned(scene: Scene, attack: Attack) -> None:
    reason = reason_to_skip(attack, scene.level)
    if reason:
        pytest.skip(reason)
    check(scene, attack)


def test_a_layer_alone_stops_what_is_said_to_be_stopped_by_it(alone: Scene) -> None:
    for attack in stopped_by(alone.level):
        check(alone, attack)
    assert len(alone.outcomes) > len(stopped_by(alone.level)) > 1
    assert alone.files_after == alone.files_before
    assert (alone.callers, alone.left) == ([], set())


@pytest.mark.parametrize("layer", ["landlock", "seccomp", "rlimits", "process"])
def test_without_a_layer_that_matters_nothing_is_graded(
    layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = tuple(replace(each, in_force=each.in_force and each.name != layer) for each in HERE)
    monkeypatch.setattr("grader.grading.isolation.probe", lambda: offered)
    course = copy_course(tmp_path)
    hand_in(tmp_path / "inbox", "ada", "01_numbers", reference(course, "01"))
    with pytest.raises(IsolationMissing, match=layer):
        grade_class(course, Order((tmp_path / "inbox",), tmp_path / "out"), lambda done, of: None)


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
