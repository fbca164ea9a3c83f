"""The layers that confine one untrusted process, and the two doors through which a warm process enters them."""

from grader.sandbox.policy.canaries import run_canaries
from grader.sandbox.policy.doors import enter_child, enter_supervisor
from grader.sandbox.policy.layers import Layer, in_force, missing, probe, tier
from grader.sandbox.policy.plan import LAYERS, Plan, PolicyError, Room
from grader.sandbox.policy.process import end_all

__all__ = [
    "LAYERS",
    "Layer",
    "Plan",
    "PolicyError",
    "Room",
    "end_all",
    "enter_child",
    "enter_supervisor",
    "in_force",
    "missing",
    "probe",
    "run_canaries",
    "tier",
]
