"""The commands of students: where am I, is it right, what next."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from grader.cli.common import EXIT_FAILED, EXIT_FINE, EXIT_MACHINE, Commands, course_of
from grader.course import Chapter, Course

PROGRESS_FILES = {"summary": "the page", "junit": "a JUnit file", "badge": "an SVG badge", "comment": "the comment"}


def add_commands(commands: Commands) -> None:
    """Add the commands of students to the parser."""
    _add(commands, "status", status, "say where you are and what is next; `grader` alone does the same")
    _add(commands, "list", _list, "list every chapter and exercise")
    watch = _add(commands, "watch", _watch, "check on every save, in less than a second")
    watch.add_argument("what", nargs="?", metavar="CHAPTER|EXERCISE", help="default: where you are")
    check = _add(commands, "check", _check, "check exercises as pytest does")
    check.add_argument("what", nargs="*", metavar="EXERCISE", help="exercises or chapters (default: all that is begun)")
    check.add_argument("--full", action="store_true", help="show pytest's full output")
    _add_from(check)
    hint = _add(commands, "hint", _hint, "give the next hint for an exercise")
    hint.add_argument("exercise", nargs="?", metavar="EXERCISE", help="default: the one you are at")
    hint.add_argument("--now", action="store_true", help="give it even without another attempt")
    _add_from(hint)
    reset = _add(commands, "reset", _reset, "put the stub of one exercise back; a copy of yours is kept")
    reset.add_argument("exercise", metavar="EXERCISE")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    _add_from(reset)
    progress = _add(commands, "progress", _progress, "check all chapters and write what a workflow shows")
    progress.add_argument("--ci", action="store_true", help="annotate, and write the job summary")
    progress.add_argument("--strict", action="store_true", help="fail while anything is still to do")
    for name, what in PROGRESS_FILES.items():
        progress.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write {what}")
    quiz = _add(commands, "quiz", _quiz, "answer a chapter's questions, each explained at once")
    quiz.add_argument("chapter", nargs="?", metavar="CHAPTER", help="default: where you are")
    capstone = _add(
        commands, "capstone", _capstone, "join your own functions into one model, train it and talk with it"
    )
    capstone.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, another model")
    capstone.add_argument("--corpus", type=Path, metavar="FILE", help="a text of your own, one document a line")
    capstone.add_argument("--quick", action="store_true", help="a short run, only to see that all fits together")
    capstone.add_argument("--reference", action="store_true", help="the course's own solutions (instructors)")
    _add(commands, "setup", _setup, "have git merge your exercises by function, so that `git pull` keeps your work")
    update = _add(commands, "update", _update, "take over a newer course from a folder or a zip file; your work stays")
    update.add_argument("source", type=Path, metavar="SOURCE", help="a newer clone, folder or zip file")
    update.add_argument("--dry-run", action="store_true", help="only say what would change")
    merge = commands.add_parser("merge-file", help="merge three versions of a file by function (git calls this)")
    for name in ("base", "ours", "theirs"):
        merge.add_argument(name, type=Path)
    merge.add_argument("name", help="the file's path in the repository")
    merge.set_defaults(run=_merge_file)
    _add(commands, "doctor", _doctor, "check this machine, and say what mends it")


def _add(commands: Commands, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    # given before the command or after it
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _add_from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", choices=("module", "notebook"), default="", dest="prefer", help="which file counts, if both do"
    )


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


# -- where am I ----------------------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    """Say where the student is and what is next."""
    from grader.student.drawer import open_drawer
    from grader.student.overview import overview, show_overview
    from grader.student.paper import Paper

    seen = overview(course_of(options), open_drawer(course_of(options)))
    if options.json:
        _print_json(seen.to_json())
    else:
        show_overview(Paper(), seen)
    return EXIT_FINE


def _list(options: argparse.Namespace) -> int:
    from grader.student.drawer import open_drawer
    from grader.student.overview import show_all
    from grader.student.paper import Paper
    from grader.student.standing import standings

    course = course_of(options)
    found = standings(course.chapters, open_drawer(course))
    if options.json:
        _print_json({"chapters": {name: [s.to_json() for s in each] for name, each in found.items()}})
    else:
        show_all(Paper(), course, found)
    return EXIT_FINE


# -- is it right ---------------------------------------------------------------------------------------------------


def _watch(options: argparse.Namespace) -> int:
    from grader.student.drawer import open_drawer
    from grader.student.names import Target, find_target
    from grader.student.overview import current_chapter
    from grader.student.paper import Paper
    from grader.student.watching import Watch

    course = course_of(options)
    drawer = open_drawer(course)
    target = find_target(course, options.what) if options.what else Target(current_chapter(course))
    try:
        Watch(course, target, drawer, None if options.json else Paper()).run()
    except KeyboardInterrupt:
        print()
    return EXIT_FINE


def _check(options: argparse.Namespace) -> int:
    from grader.student.checking import begun_works, chosen_works, exit_state, run_in_full, show_runs
    from grader.student.drawer import open_drawer
    from grader.student.paper import Paper
    from grader.student.standing import check
    from grader.verdict import State

    course = course_of(options)
    works = chosen_works(course, options.what, options.prefer) if options.what else begun_works(course, options.prefer)
    if options.full:
        return EXIT_FAILED if any([run_in_full(work, exercises) for work, exercises in works]) else EXIT_FINE
    runs = check(works, open_drawer(course))
    if options.json:
        shown = [s.to_json() for run in runs for s in run.standings]
        _print_json({"exercises": shown, "problems": [run.problem for run in runs if run.problem]})
    else:
        show_runs(Paper(), runs)
    if any(run.is_machine for run in runs):
        return EXIT_MACHINE
    return EXIT_FAILED if exit_state(runs) is State.WRONG else EXIT_FINE


def _progress(options: argparse.Namespace) -> int:
    from grader.report.annotations import annotate
    from grader.report.badge import badge
    from grader.report.course_page import comment, course_page, rows_of
    from grader.report.junit import junit
    from grader.student.drawer import open_drawer
    from grader.student.standing import next_after, standings
    from grader.verdict import State

    course = course_of(options)
    found = standings(course.chapters, open_drawer(course))
    rows = rows_of(course.chapters, found)
    everything = [standing for row in rows for standing in row.standings]
    right = sum(standing.state is State.RIGHT for standing in everything)
    texts = {
        "summary": course_page(rows),
        "junit": junit(rows),
        "badge": badge(right, len(everything)),
        "comment": comment(rows),
    }
    for name, text in texts.items():
        if getattr(options, name) is not None:
            getattr(options, name).write_text(text, encoding="utf-8")
    if options.ci:
        print("\n".join(annotate(everything, next_after(everything))))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(texts["summary"])
    elif options.json:
        _print_json({"chapters": {name: [s.to_json() for s in each] for name, each in found.items()}})
    else:
        print(texts["summary"])
    wrong = any(standing.state is State.WRONG for standing in everything)
    return EXIT_FAILED if wrong or (options.strict and right < len(everything)) else EXIT_FINE


# -- what helps ----------------------------------------------------------------------------------------------------


def _hint(options: argparse.Namespace) -> int:
    from grader.student import showing
    from grader.student.drawer import open_drawer
    from grader.student.hints import climb
    from grader.student.names import find_exercise
    from grader.student.overview import current_exercise
    from grader.student.paper import Paper
    from grader.student.work import read_work

    course = course_of(options)
    drawer = open_drawer(course)
    target = find_exercise(course, options.exercise) if options.exercise else current_exercise(course, drawer)
    assert target.exercise is not None
    ladder = climb(read_work(target.chapter, options.prefer), target.exercise, drawer, options.now)
    if options.json:
        _print_json(ladder.to_json())
    else:
        showing.ladder(Paper(), ladder)
    return EXIT_FINE


def _reset(options: argparse.Namespace) -> int:
    from grader.student.drawer import open_drawer
    from grader.student.names import find_exercise
    from grader.student.reset import reset
    from grader.student.work import read_work, short

    course = course_of(options)
    target = find_exercise(course, options.exercise)
    assert target.exercise is not None
    work = read_work(target.chapter, options.prefer)
    question = f"Put the stub of {target.exercise.name} back into {short(work.file)}? A copy of yours is kept. [y/N] "
    if not (options.yes or options.json) and sys.stdin.isatty() and not input(question).lower().startswith("y"):
        print("Nothing was changed.")
        return EXIT_FINE
    done = reset(work, target.exercise, open_drawer(course))
    if options.json:
        _print_json(done.to_json() if done else {"id": target.exercise.id, "functions": []})
    elif done is None:
        print(f"{target.exercise.name} is as it came; nothing was changed.")
    else:
        print(f"{', '.join(done.functions)} in {short(done.file)} is a stub again; yours is in {short(done.copy)}.")
    return EXIT_FINE


def _quiz(options: argparse.Namespace) -> int:
    from grader.student.asking import ask_all, to_json
    from grader.student.drawer import open_drawer
    from grader.student.overview import current_chapter
    from grader.student.paper import Paper
    from grader.student.quiz import read_quiz

    course = course_of(options)
    chapter = _chapter(course, options.chapter) if options.chapter else current_chapter(course)
    questions = read_quiz(chapter)
    if options.json:
        _print_json(to_json(chapter, questions, sys.stdin))
    else:
        ask_all(Paper(), chapter, questions, open_drawer(course))
    return EXIT_FINE


def _chapter(course: Course, word: str) -> Chapter:
    from grader.student.names import find_target

    return find_target(course, word).chapter


# -- the capstone -----------------------------------------------------------------------------------------------------


def _capstone(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from grader.student import capstone
    from grader.student.drawer import open_drawer
    from grader.student.paper import Paper
    from grader.student.talk import converse, show_run

    course = course_of(options)
    drawer = open_drawer(course)
    joined = capstone.join_reference(course) if options.reference else capstone.join(course, drawer)
    documents = capstone.corpus(options.corpus, options.seed)
    trained = capstone.run(joined, documents, options.seed, options.quick, lambda text: print(text, file=sys.stderr))
    runs = capstone.remember(drawer, joined, trained, options.seed)
    if options.json:
        rows = [asdict(row) for row in trained.rows]
        _print_json({"own": joined.own, "stand_ins": dict(joined.missing), "rows": rows, "report": trained.report})
        return EXIT_FINE
    show_run(Paper(), joined, trained, runs)
    converse(trained.make_talk)
    return EXIT_FINE


# -- updates -------------------------------------------------------------------------------------------------------


def _setup(options: argparse.Namespace) -> int:
    from grader.student.driver import set_up

    done = set_up(course_of(options).root)
    if options.json:
        _print_json({"done": done})
    else:
        print("\n".join(done) or "Everything is set up.")
    return EXIT_FINE


def _update(options: argparse.Namespace) -> int:
    from grader.student.drawer import open_drawer
    from grader.student.paper import Paper
    from grader.student.update import apply, plan, show_changes

    course = course_of(options)
    changes = plan(course, options.source)
    copies = None if options.dry_run else apply(course, changes, open_drawer(course))
    if options.json:
        _print_json({"changes": [change.to_json() for change in changes], "copies": str(copies) if copies else None})
    else:
        show_changes(Paper(), changes, copies, options.dry_run)
    return EXIT_FAILED if any(change.kind == "left" for change in changes) else EXIT_FINE


def _merge_file(options: argparse.Namespace) -> int:
    from grader.student.driver import merge_files

    return EXIT_FINE if merge_files(options.base, options.ours, options.theirs, options.name) else EXIT_FAILED


# -- the machine ---------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from grader.report.terminal import doctor_table
    from grader.sandbox.policy import missing, probe, tier
    from grader.student.doctor import examine, show_checks
    from grader.student.paper import Paper

    checks = examine(course_of(options))
    layers = probe()
    lacking = missing(layers)
    if options.json:
        shown = {"checks": [asdict(check) for check in checks], "layers": [asdict(layer) for layer in layers]}
        _print_json({**shown, "tier": tier(layers), "missing": lacking})
    else:
        show_checks(Paper(), checks)
        print("\nFor instructors: the layers around a submission that is graded\n")
        print(doctor_table(layers))
        verdict = f"not in force: {', '.join(lacking)}; `grader grade` refuses" if lacking else "safe to grade"
        print(f"Tier {tier(layers)}: {verdict}.")
    # elsewhere nobody grades, and a student's machine is sound without a sandbox
    unsafe = bool(lacking) and sys.platform == "linux"
    return EXIT_FAILED if unsafe or not all(check.ok for check in checks) else EXIT_FINE
