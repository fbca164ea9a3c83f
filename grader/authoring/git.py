"""git as the release uses it: alike whatever this user's settings are, its failures as sentences."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from grader.course import CourseError

NAME, EMAIL = "LLM from Stubs", "course@localhost"
IDENTITY = {
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), NAME),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), EMAIL),
}


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run git in a folder and give what it prints. Raises CourseError."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # as set inside a hook
    command = ["git", "-c", "core.autocrlf=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**environ, **IDENTITY}, input=stdin, capture_output=True, check=True
        )
    except FileNotFoundError:
        raise CourseError("git is missing; install it, the release is a git repository.") from None
    except subprocess.CalledProcessError as error:
        words = (error.stderr.decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
        raise CourseError(f"git {arguments[0]} failed in {folder}: {words}.") from None
    return done.stdout
