"""The commands of students: doctor."""

from __future__ import annotations

import argparse
import json

from grader.cli.common import EXIT_FAILED, EXIT_FINE, Commands


def add_commands(commands: Commands) -> None:
    """Add the commands of students to the parser."""
    doctor = commands.add_parser("doctor", help="say which layers of the sandbox this host offers")
    doctor.add_argument("--json", action="store_true", help="print the layers as JSON")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from grader.report.terminal import doctor_table
    from grader.sandbox.policy import missing, probe, tier

    layers = probe()
    lacking = missing(layers)
    if options.json:
        rows = [asdict(layer) for layer in layers]
        print(json.dumps({"layers": rows, "tier": tier(layers), "missing": lacking}, indent=2))
    else:
        print(doctor_table(layers))
        verdict = f"not in force: {', '.join(lacking)}; `grader grade` refuses" if lacking else "safe to grade"
        print(f"Tier {tier(layers)}: {verdict}.")
    return EXIT_FAILED if lacking else EXIT_FINE
