"""One row a measurement, and the machine it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.grading.store import environment


@dataclass(frozen=True)
class Row:
    """One figure against its aim."""

    label: str
    what: str
    figure: float
    unit: str
    aim: str
    reached: bool
    detail: str = ""


def markdown(rows: Sequence[Row]) -> str:
    """Give the table with the machine's facts above it."""
    facts = {"cores": str(os.cpu_count()), "load": f"{os.getloadavg()[0]:.1f}", "kernel": platform.release()}
    lines = [
        "# Benchmarks",
        "",
        ", ".join(f"{name} {value}" for name, value in {**_processor(), **facts, **environment()}.items()),
        "",
        "| | what | measured | aim | reached | detail |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figure = f"{row.figure:.3g} {row.unit}".strip()
        word = "yes" if row.reached else "no"
        lines.append(f"| {row.label} | {row.what} | {figure} | {row.aim} | {word} | {row.detail} |")
    return "\n".join(lines) + "\n"


def _processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {"processor": platform.processor()}
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {"processor": names[0] if names else platform.machine()}
