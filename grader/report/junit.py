"""Progress as a JUnit file, which most other tools read: a suite for each chapter, a case for each exercise."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from grader.report.course_page import Row
from grader.report.safe import clean
from grader.verdict import State


def junit(rows: Sequence[Row]) -> str:
    """Give the file's text; what is to do or waits is skipped, not failed."""
    suites = ElementTree.Element("testsuites")
    for row in rows:
        counts = {
            "tests": len(row.standings),
            "failures": sum(s.state is State.WRONG for s in row.standings),
            "skipped": sum(s.state in (State.TODO, State.WAITS) for s in row.standings),
        }
        attributes = {key: str(value) for key, value in counts.items()}
        suite = ElementTree.SubElement(suites, "testsuite", {"name": row.chapter.name, "errors": "0", **attributes})
        for standing in row.standings:
            names = {"classname": row.chapter.name, "name": standing.exercise.name}
            case = ElementTree.SubElement(suite, "testcase", names)
            lesson = standing.lesson()
            if standing.state is State.WRONG:
                message = clean(lesson["claim"] if lesson else standing.words)
                failure = ElementTree.SubElement(case, "failure", {"message": message})
                failure.text = "\n".join(clean(line) for line in lesson["body"]) if lesson else message
            elif standing.state is not State.RIGHT:
                ElementTree.SubElement(case, "skipped", {"message": clean(standing.words)})
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
