"""A student's page in Markdown: what is right, what does not hold yet, where to go next.

Nothing of a hidden test but its title leaves the house, and nothing that a student's code could write is live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grader.course import Chapter, Course, Exercise
from grader.grading.result import ExerciseOutcome, Outcome, TestOutcome, Verdict
from grader.report.markdown import code, fence, prose
from grader.report.quiz_keys import NOT_ASKED, Asked, ask_yourself
from grader.report.safe import clean, visible, without_paths
from grader.report.statistics import collect, find_chapter, points_of
from grader.report.words import ATTEMPTED, VERDICT_WORDS, Standing, number, plural, standing, verdict_words

TITLES = 10
NOTE = 200
"""Room for an error's first line, and little for a hidden input that a student's error repeats."""

AGAIN = "The grading machine failed, not your code. This chapter will be graded again; it does not count as zero."


def student_page(outcomes: Iterable[Outcome], course: Course, asked: Asked = NOT_ASKED) -> str:
    """Give the page of the one student whose outcomes these are; `asked` tells which questions are about a mistake.

    Raises:
        ValueError: if they are of several students or of none.
    """
    results = collect(outcomes)
    if len(results) != 1:
        raise ValueError(f"A feedback page is for one student, but these outcomes are of {len(results)}.")
    ((student, own),) = results.items()
    blocks = [f"# Feedback for {code(visible(student))}", _total(list(own.values()), course)]
    for outcome in own.values():
        blocks += _chapter(outcome, find_chapter(course, outcome.chapter), course, asked)
    blocks += ["## Where to go next", _next_step(list(own.values()), course)]
    return "\n\n".join(blocks) + "\n"


def _total(outcomes: Sequence[Outcome], course: Course) -> str:
    graded = [outcome for outcome in outcomes if not outcome.is_infra]
    score, points = sum(o.score for o in graded), sum(points_of(o, course) for o in graded)
    line = f"**{number(score)} of {number(points)} points** in {plural(len(graded), 'chapter')} handed in."
    waiting = len(outcomes) - len(graded)
    return f"{line} {plural(waiting, 'more chapter')} will be graded again." if waiting else line


def _chapter(outcome: Outcome, chapter: Chapter | None, course: Course, asked: Asked) -> list[str]:
    title = f"{chapter.number} {prose(chapter.title)}" if chapter else code(outcome.chapter)
    points = "to be graded again" if outcome.is_infra else _points(outcome.score, points_of(outcome, course))
    blocks = [f"## {title}: {points}"]
    if outcome.is_infra:
        blocks.append(AGAIN)
    if outcome.problem:
        blocks += ["The hand-in could not be graded:", _quoted(outcome.problem)]
    if outcome.exercises:
        blocks.append(_overview(outcome, chapter))
    for exercise in outcome.exercises:
        places = asked.get((outcome.chapter, exercise.misconception), ())
        question = ask_yourself(outcome.chapter[:2], places)
        blocks += _details(exercise, _known(chapter, exercise.name), question)
    return blocks


def _overview(outcome: Outcome, chapter: Chapter | None) -> str:
    rows = ["| exercise | result | score |", "|---|---|---|"]
    for exercise in outcome.exercises:
        words = prose(verdict_words(exercise))
        if exercise.verdict is Verdict.WAITS and standing(exercise) is Standing.WAITS:
            words = _waits_for(exercise, outcome, chapter) or words
        score = "to come" if standing(exercise) is Standing.AGAIN else _ratio(exercise)
        rows.append(f"| {code(exercise.name)} | {words} | {score} |")
    return "\n".join(rows)


def _waits_for(exercise: ExerciseOutcome, outcome: Outcome, chapter: Chapter | None) -> str:
    known = _known(chapter, exercise.name)
    done = {other.name for other in outcome.exercises if standing(other) is Standing.RIGHT}
    missing = [code(need) for need in (known.needs if known else ()) if need not in done]
    return f"waits for {', '.join(missing)}" if missing else ""


def _details(exercise: ExerciseOutcome, known: Exercise | None, question: str) -> list[str]:
    """Explain an exercise that was attempted and is not right; the others have said all in the overview."""
    where = standing(exercise)
    blocks = [
        f"### {code(exercise.name)}: {prose(verdict_words(exercise))}, {_points(exercise.score, exercise.points)}"
    ]
    if exercise.diagnosis:
        blocks.append(f"Looks like: {prose(exercise.diagnosis)} {question}".rstrip())
    if exercise.note and where not in (Standing.RIGHT, Standing.WAITS, Standing.TODO):
        blocks += ["What happened:", _quoted(exercise.note)]
    if where in ATTEMPTED and where is not Standing.RIGHT:
        blocks += _titles(exercise.tests)
        if exercise.verdict is Verdict.FORBIDDEN and known and known.forbidden:
            blocks.append(f"Write it without {', '.join(map(code, known.forbidden))}.")
        if known:
            blocks.append(f"Hint: {prose(known.hints[0])}")
    return blocks if len(blocks) > 1 else []


def _titles(tests: Sequence[TestOutcome]) -> list[str]:
    """List what failed, each claim once, by its title alone."""
    failed: dict[str, Verdict] = {}
    for test in tests:
        if test.title and test.verdict not in (Verdict.PASSED, Verdict.INFRA):
            failed.setdefault(test.title, test.verdict)
    lines = [_claim(title, verdict) for title, verdict in list(failed.items())[:TITLES]]
    if len(failed) > TITLES:
        lines.append(f"- and {len(failed) - TITLES} more")
    return ["Does not hold yet:", "\n".join(lines)] if lines else []


def _claim(title: str, verdict: Verdict) -> str:
    claim = f"- {prose(title)}"
    return claim if verdict is Verdict.WRONG else f"{claim} ({prose(VERDICT_WORDS[verdict])})"


def _next_step(outcomes: Sequence[Outcome], course: Course) -> str:
    """Name the first exercise that is neither right nor waiting, else the next chapter."""
    for outcome in outcomes:
        if not outcome.exercises and outcome.problem:
            return f"Hand in {code(outcome.chapter)} again: it could not be read."
        for exercise in outcome.exercises:
            where = standing(exercise)
            if where is Standing.REJECTED:
                return f"Hand in {code(outcome.chapter)} again: it could not be read."
            if where not in (Standing.RIGHT, Standing.WAITS, Standing.AGAIN):
                verb = "Begin with" if where is Standing.TODO else "Mend"
                check = code(f"pytest chapters/{outcome.chapter} -k {exercise.name}")
                return f"{verb} {code(exercise.name)} and check it with {check}."
    if any(outcome.is_infra for outcome in outcomes):
        return "Nothing is left for you to mend; wait for the chapters that are graded again."
    done = {outcome.chapter for outcome in outcomes}
    following = next((c for c in course.chapters if c.name > max(done)), None)
    return (
        f"All of it is right. Next: chapter {following.number}, {prose(following.title)}." if following else "All done."
    )


def _known(chapter: Chapter | None, name: str) -> Exercise | None:
    return next((e for e in chapter.exercises if e.name == name), None) if chapter else None


def _quoted(text: str) -> str:
    return fence(clean(without_paths(text), NOTE))


def _ratio(exercise: ExerciseOutcome) -> str:
    return f"{number(exercise.score)}/{number(exercise.points)}"


def _points(score: float, points: float) -> str:
    return f"{number(score)} of {_plural_points(points)}"


def _plural_points(points: float) -> str:
    """Write points with their noun, such as '1 point' and '2.5 points'."""
    return f"{number(points)} point" if points == 1 else f"{number(points)} points"
