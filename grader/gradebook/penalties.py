"""Late penalties as nbgrader assigns them, but for one that a person has set: it survives a regrade.

nbgrader has one column for both and resets it with each run. So what the plugin assigned is remembered, and whatever
else stands there is a person's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook  # type: ignore[import-untyped]
from nbgrader.preprocessors import AssignLatePenalties  # type: ignore[import-untyped]

from grader.grading.store import write_atomically
from grader.report.safe import file_stem


class KeepLatePenalties(AssignLatePenalties):  # type: ignore[misc]
    """Assigns the plugin's penalty, unless a person has set another one."""

    def preprocess(self, nb: Any, resources: Any) -> Any:
        """Assign, or keep, the penalty of one notebook."""
        names = resources["nbgrader"]
        root = Path(self.parent.parent.coursedir.root)
        remembered = root / ".grader" / "penalties" / names["assignment"] / f"{file_stem(names['student'])}.txt"
        place = (names["notebook"], names["assignment"], names["student"])
        with Gradebook(names["db_url"]) as gradebook:
            before = gradebook.find_submission_notebook(*place).late_submission_penalty
        self._assigned = 0.0
        result = super().preprocess(nb, resources)
        if before and not math.isclose(before, _read(remembered), rel_tol=1e-6):
            self.log.warning("%s, %s: the late penalty of %g was set by hand and is kept.", *place[:0:-1], before)
            with Gradebook(names["db_url"]) as gradebook:
                gradebook.find_submission_notebook(*place).late_submission_penalty = before
                gradebook.db.commit()
        elif self._assigned or remembered.is_file():
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(remembered, repr(float(self._assigned)).encode())
        return result

    def _check_late_penalty(self, notebook: Any, penalty: float) -> float:
        self._assigned = super()._check_late_penalty(notebook, penalty)
        return self._assigned


def _read(file: Path) -> float:
    try:
        return float(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
