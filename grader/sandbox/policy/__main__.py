"""`python -m grader.sandbox.policy`: what this host can put in force, and what would change that."""

from __future__ import annotations

from grader.sandbox.policy import Layer, PolicyError, missing, probe, run_canaries, tier


def main() -> int:
    """Print the table; give 0 if grading is safe here, 1 if not."""
    layers = probe()
    for layer in layers:
        print(f"{layer.name:<17} {'in force' if layer.in_force else 'not in force'}: {layer.why}")
        if layer.remedy:
            print(f"{'':<17} {layer.remedy}")
    lacking = missing(layers)
    problem = f"Not safe without: {', '.join(lacking)}." if lacking else _escape(layers)
    print(f"\nTier {tier(layers)}. {problem or 'No attempt to break out succeeded.'}")
    return 1 if problem else 0


def _escape(layers: tuple[Layer, ...]) -> str:
    try:
        names = run_canaries(layers)
    except PolicyError as error:
        return str(error)
    return f"Not safe, a confined process could: {', '.join(names)}." if names else ""


if __name__ == "__main__":
    raise SystemExit(main())
