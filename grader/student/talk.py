"""What the capstone shows: which parts are whose, the leaderboard, and a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grader.student.capstone import Joined, Talk, Trained
from grader.student.paper import Paper

BEST = 5


def show_run(paper: Paper, joined: Joined, trained: Trained, runs: Sequence[Mapping[str, Any]]) -> None:
    """Show the parts, what was measured beside what is known, and the best runs so far."""
    report = trained.report
    paper.rule("your own language model")
    paper.line(f"{report['params']:,} parameters, {report['tokens']:,} tokens read, {trained.seconds:.0f} s")
    paper.line(f"yours: {', '.join(joined.own) or 'no part yet'}", hang=2)
    if joined.missing:
        waiting = sorted({exercise for exercise in joined.missing.values()})
        paper.line(f"stand-ins, until these are right: {', '.join(waiting)}", hang=2)
    paper.line()
    for row in trained.rows:
        paper.parts((f"{row.task:<28}", ""), (f"{row.value:>10}", "bold"), (f"   {row.known}", "dim"))
    paper.line()
    paper.line("best runs, least bits a byte first:")
    for place, each in enumerate(runs[:BEST], start=1):
        now = "  this run" if each["hash"] == report["hash"] else ""
        own = f"{each['own']} of {each['parts']} parts your own"
        paper.line(f"{place}. {each['held_out_bpb']:.3f}  {own}, seed {each['seed']}, {each['day']}{now}", indent=2)


def converse(make_talk: Callable[[], Talk]) -> None:
    """Talk until an empty line; where nobody sits, nothing is made and nothing said."""
    if not sys.stdin.isatty():
        return
    print("\nmaking the model once more, to talk with it ...", flush=True)
    talk = make_talk()
    print("Say the first word of a sentence; an empty line ends.")
    while True:
        try:
            word = input("you> ").strip()
        except EOFError:
            return
        if not word:
            return
        answer = talk(word)
        print(f"model> {answer if answer is not None else '(it did not come to an end)'}")
