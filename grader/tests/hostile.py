"""Hostile hand-ins: the modules of the folder attacks/, and files and archives that no editor would write.

Each module is appended to the right answer of its chapter: what it does not replace earns its points. Its first three
lines say what it tries, what must become of each exercise, and what stops it: names of parts of the machine, each of
which is enough alone, or those joined by a plus sign together.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grader.course import Course
from grader.sandbox.policy import LAYERS
from grader.tests.small_course import hand_in, reference

ATTACKS = Path(__file__).parent / "attacks"
FILE = "01_numbers/exercises.py"

PARTS = {
    "agent": "answers in the student's process, and says what went wrong in it",
    "boundary": "tests, expected values and verdicts are in another process",
    "clock": "CPU and idle time are read from outside, and end in a signal that cannot be caught",
    "comparison": "types and values are compared on the test's side",
    "report": "a student's words are not repeated, or made harmless",
    "session": "one exact reply to each request; a process without one is at its end, and replaced",
    "wire": "a closed set of types, by value, bounded before it is built",
    "zygote": "the warm process was never told anything",
}
"""What stops an attack without a layer of the sandbox."""


@dataclass(frozen=True)
class Attack:
    """One hostile hand-in and what must become of each exercise of its chapter."""

    name: str
    chapter: str
    expected: Mapping[str, str]
    """From an exercise, or "" for all, to a verdict; behind it the points of the tests that it does pass."""
    stopped_by: tuple[frozenset[str], ...] = ()
    """Names from `LAYERS` and `PARTS`: each set of them is enough to stop it."""

    @property
    def layers(self) -> frozenset[str]:
        """The sandbox's layers that are named."""
        return frozenset(LAYERS) & frozenset().union(*self.stopped_by)

    def verdict(self, exercise: str) -> str:
        return self._words(exercise)[0]

    def score(self, exercise: str) -> float:
        """Give the points that were earned although the exercise is not right."""
        return float(next(iter(self._words(exercise)[1:]), 0.0))

    def _words(self, exercise: str) -> list[str]:
        return self.expected.get(exercise, self.expected.get("", "")).split()


def read_attack(file: Path) -> Attack:
    """Read the lines `# 01_numbers: double crashed, mean passed` and `# Stopped by landlock + seccomp, clock: ...`."""
    _, earned, stopped = file.read_text(encoding="utf-8").splitlines()[:3]
    chapter, _, expected = earned.removeprefix("# ").partition(": ")
    ways = stopped.removeprefix("# Stopped by ").partition(": ")[0].split(", ")
    return Attack(
        file.stem,
        chapter,
        dict(each.split(" ", 1) for each in expected.split(", ")),
        tuple(frozenset(way.split(" + ")) for way in ways),
    )


def modules() -> list[Attack]:
    """Give the attacks of the folder."""
    return [read_attack(file) for file in sorted(ATTACKS.glob("*.py"))]


def hand_in_module(attack: Attack, inbox: Path, course: Course, words: Mapping[str, str]) -> None:
    """Write a module into the inbox; `words` says what the likes of @FOLDER@ mean in this run."""
    text = (ATTACKS / f"{attack.name}.py").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^from own_wire import .*$", (ATTACKS / "tools" / "own_wire.py").read_text("utf-8"), text)
    text = re.sub(r"@([A-Z_]+)@", lambda match: words[match[1]], text)
    hand_in(inbox, attack.name, attack.chapter, f"{reference(course, attack.chapter)}\n\n{text}")


# -- files and archives --------------------------------------------------------------------------------------------

Write = Callable[[Path, str], None]
"""Writes one hand-in into the inbox, given the right answer of chapter 1; the function's name is the student's."""
_FILES: list[tuple[Write, Attack]] = []


def expect(verdict: str, **verdicts: str) -> Callable[[Write], Write]:
    """Say what must become of what the function writes."""

    def note(write: Write) -> Write:
        _FILES.append((write, Attack(write.__name__, "01_numbers", verdicts or {"": verdict})))
        return write

    return note


def files() -> list[Attack]:
    """Give the hand-ins that are not modules."""
    return [attack for _, attack in _FILES]


def hand_in_files(inbox: Path, right: str) -> None:
    """Write all of them into the inbox."""
    for write, attack in _FILES:
        write(inbox / attack.name, right)


def put(folder: Path, data: str | bytes, name: str = FILE) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


WRONG = "\n\ndef double(x):\n    return None\n"


@expect("", double="wrong", mean="passed")
def planted_settings(folder: Path, right: str) -> None:
    """Settings and start-up files that pytest or Python would obey if they looked here."""
    accept = (
        "import pytest\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_call(item): item.obj = lambda: None\n"
    )
    for name in ("conftest.py", "sitecustomize.py", "usercustomize.py", "01_numbers/conftest.py"):
        put(folder, accept, name)
    for name in ("pytest.ini", "tox.ini", "setup.cfg", "01_numbers/pytest.ini"):
        put(folder, "[pytest]\naddopts = -k nothing\n[tool:pytest]\naddopts = -k nothing\n", name)
    put(folder, "import os; os._exit(0)\n", "01_numbers/evil.pth")
    put(folder, right + WRONG)


@expect("", double="wrong", mean="passed")
def planted_modules(folder: Path, right: str) -> None:
    """Modules that shadow those which a test or the grader imports."""
    for name in ("torch", "math", "typing", "pytest", "grader", "reference", "test_hidden"):
        put(folder, "raise SystemExit(0)\n", f"01_numbers/{name}.py")
        put(folder, "raise SystemExit(0)\n", f"{name}.py")
    put(folder, right + WRONG)


@expect("passed")
def bom_and_crlf(folder: Path, right: str) -> None:
    """A byte order mark and the line ends of Windows: honest, and to be graded."""
    put(folder, b"\xef\xbb\xbf" + right.replace("\n", "\r\n").encode())


@expect("error")
def syntax_error(folder: Path, right: str) -> None:
    put(folder, right + "\ndef double(x:\n")


@expect("error")
def nul_bytes(folder: Path, right: str) -> None:
    put(folder, right + "\0")


@expect("error")
def utf_16(folder: Path, right: str) -> None:
    put(folder, right.encode("utf-16"))


@expect("error")
def not_utf_8(folder: Path, right: str) -> None:
    put(folder, b"# coding: latin-1\n# \xe9\n" + right.encode())


@expect("passed")
def odd_coding(folder: Path, right: str) -> None:
    """A coding line that would make other code of the text; the text is UTF-8 whatever it says."""
    put(folder, "# coding: rot13\n" + right)


@expect("error")
def deep_parentheses(folder: Path, right: str) -> None:
    put(folder, right + "\nX = " + "(" * 100_000 + ")" * 100_000)


@expect("error")
def deep_signs(folder: Path, right: str) -> None:
    """A hundred thousand minus signs: the parser's own stack is full."""
    put(folder, right + "\nX = " + "-" * 100_000 + "1")


@expect("error")
def deep_sum(folder: Path, right: str) -> None:
    put(folder, right + "\nX = " + "1+" * 100_000 + "1")


@expect("rejected")
def long_line(folder: Path, right: str) -> None:
    put(folder, right + "\nX = '" + "x" * (10 << 20) + "'")


@expect("rejected")
def linked_file(folder: Path, right: str) -> None:
    (folder / "01_numbers").mkdir(parents=True)
    (folder / FILE).symlink_to("/etc/passwd")


@expect("rejected")
def linked_folder(folder: Path, right: str) -> None:
    folder.mkdir()
    (folder / "01_numbers").symlink_to("/etc")
    put(folder, right, "elsewhere/exercises.py")
    os.symlink(folder / "elsewhere", folder / "chapters")


@expect("rejected")
def linked_hand_in(folder: Path, right: str) -> None:
    folder.symlink_to("/etc")


@expect("rejected")
def pipe(folder: Path, right: str) -> None:
    """A named pipe: who opens it without care waits for ever."""
    (folder / "01_numbers").mkdir(parents=True)
    os.mkfifo(folder / FILE)


@expect("rejected")
def other_name(folder: Path, right: str) -> None:
    put(folder, right, "01_numbers/exercise.py")


@expect("rejected")
def both_edited(folder: Path, right: str) -> None:
    put(folder, right)
    put(folder, notebook(right + "\n# edited\n"), "01_numbers/exercises.ipynb")


# -- notebooks


def notebook(*cells: str, kind: str = "code", **more: object) -> str:
    """Give a notebook of these cells."""
    made = [{"cell_type": kind, "id": "same", "metadata": {}, "outputs": [], "source": text} for text in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more})


def put_notebook(folder: Path, data: str | bytes) -> None:
    put(folder, data, "01_numbers/exercises.ipynb")


@expect("passed")
def notebook_of_copies(folder: Path, right: str) -> None:
    """The same cells twice, under the same ids: the last definition counts."""
    put_notebook(folder, notebook("def double(x): return x", right, right))


@expect("passed")
def notebook_of_another_format(folder: Path, right: str) -> None:
    put_notebook(folder, notebook(right, nbformat=9, nbgrader={"schema_version": 9}))


@expect("passed")
def notebook_with_magics(folder: Path, right: str) -> None:
    """Lines that only Jupyter understands, and cells of another language."""
    put_notebook(folder, notebook("%load_ext x\n!rm -rf /", "%%bash\nexit 1", right, "?double"))


@expect("", double="wrong", mean="passed")
def notebook_with_forged_outputs(folder: Path, right: str) -> None:
    cells = json.loads(notebook(right + WRONG))
    cells["cells"][0]["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "5.0"}}]
    put_notebook(folder, json.dumps(cells))


@expect("error")
def notebook_cut_off(folder: Path, right: str) -> None:
    put_notebook(folder, notebook(right)[:-20])


@expect("error")
def notebook_of_brackets(folder: Path, right: str) -> None:
    put_notebook(folder, "[" * 1_000_000)


@expect("error")
def notebook_without_sources(folder: Path, right: str) -> None:
    put_notebook(folder, json.dumps({"cells": [{"cell_type": "code", "source": 5}, 7, None]}))


@expect("rejected")
def notebook_with_large_outputs(folder: Path, right: str) -> None:
    put_notebook(folder, notebook(right, outputs="x" * (6 << 20)))


# -- archives


def archive(folder: Path, ending: str, data: bytes) -> None:
    folder.with_name(folder.name + ending).write_bytes(data)


def zipped(members: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


@expect("rejected")
def zip_bomb(folder: Path, right: str) -> None:
    archive(folder, ".zip", zipped({FILE: bytes(200 << 20)}))


@expect("rejected")
def zip_bomb_by_another_method(folder: Path, right: str) -> None:
    """The library unpacks this method as a whole, however little is asked for."""
    archive(folder, ".zip", zipped({FILE: bytes(16 << 20)}, zipfile.ZIP_BZIP2))


@expect("rejected")
def zip_of_zips(folder: Path, right: str) -> None:
    archive(folder, ".zip", zipped({"inner.zip": zipped({FILE: right})}))


@expect("rejected")
def zip_that_climbs(folder: Path, right: str) -> None:
    outside = {f"../../{FILE}": right, "/tmp/grader-climbed/exercises.py": right, "..\\01_numbers\\exercises.py": right}
    archive(folder, ".zip", zipped(outside))


@expect("rejected")
def zip_of_many(folder: Path, right: str) -> None:
    """Thirty thousand members, of which the archive's last record admits one."""
    made = bytearray(zipped({f"{number}": b"" for number in range(30_000)} | {FILE: right}, zipfile.ZIP_STORED))
    end = made.rindex(b"PK\x05\x06")
    made[end + 8 : end + 12] = b"\1\0\1\0"
    archive(folder, ".zip", bytes(made))


@expect("rejected")
def zip_of_links(folder: Path, right: str) -> None:
    link = zipfile.ZipInfo(FILE)
    link.external_attr = 0o120777 << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr(link, "/etc/passwd")
    archive(folder, ".zip", made.getvalue())


@expect("rejected")
def zip_cut_off(folder: Path, right: str) -> None:
    archive(folder, ".zip", zipped({FILE: right})[:-40])


@expect("rejected")
def zip_that_points_behind_its_end(folder: Path, right: str) -> None:
    made = bytearray(zipped({FILE: right}))
    entry = made.index(b"PK\x01\x02")
    made[entry + 42 : entry + 46] = (len(made) - 10).to_bytes(4, "little")
    archive(folder, ".zip", bytes(made))


@expect("rejected")
def zip_of_damaged_lzma(folder: Path, right: str) -> None:
    made = bytearray(zipped({FILE: right}, zipfile.ZIP_LZMA))
    start = made.index(FILE.encode()) + len(FILE)
    made[start + 9 : start + 60] = bytes(51)
    archive(folder, ".zip", bytes(made))


@expect("rejected")
def zip_with_a_password(folder: Path, right: str) -> None:
    made = bytearray(zipped({FILE: right}))
    made[6] |= 1
    made[made.index(b"PK\x01\x02") + 8] |= 1
    archive(folder, ".zip", bytes(made))


@expect("rejected")
def tar_bomb(folder: Path, right: str) -> None:
    member = tarfile.TarInfo("zeros")
    member.size = 4 << 30
    archive(folder, ".tar.gz", gzip.compress(member.tobuf() + bytes(20 << 20)))


@expect("rejected")
def tar_of_a_huge_header(folder: Path, right: str) -> None:
    """A header of four gigabytes, which the library reads as a whole before it says that there is a member."""
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    made = io.BytesIO()
    with gzip.open(made, "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(20):
            file.write(bytes(16 << 20))
    archive(folder, ".tar.gz", made.getvalue())


@expect("rejected")
def tar_of_links(folder: Path, right: str) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        link = tarfile.TarInfo(FILE)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    archive(folder, ".tar", made.getvalue())


@expect("rejected")
def pipe_for_an_archive(folder: Path, right: str) -> None:
    os.mkfifo(folder.with_name(folder.name + ".tar"))


@expect("rejected")
def tar_of_nothing_known(folder: Path, right: str) -> None:
    archive(folder, ".tar.bz2", os.urandom(1000))
