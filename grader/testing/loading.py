"""Trusted files of the course as modules: the reference beside a file, and the data sets."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from pathlib import Path

DATASETS = Path(__file__).resolve().parent.parent.parent / "datasets"


def load_module(file: Path, name: str) -> types.ModuleType:
    """Import a trusted file under a unique name, without a place on the module path."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    spec.loader.exec_module(module)
    return module


def reference_of(file: str) -> types.ModuleType:
    """Give the reference module beside `file`, freshly loaded."""
    folder = Path(file).resolve().parent
    return load_module(folder / "exercises.py", f"solutions.{folder.name}.exercises")


@cache
def dataset(name: str) -> types.ModuleType:
    """Give the generator of a data set, the module `datasets/NAME/make.py`: pure functions of a seed and a size.

    Raises:
        LookupError: if there is no data set of that name.
    """
    file = DATASETS / name / "make.py"
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in DATASETS.glob("*/make.py"))) or "none"
        raise LookupError(f"{file} is missing, so there is no data set {name!r}; there are {known}.")
    return load_module(file, f"datasets.{name}")
