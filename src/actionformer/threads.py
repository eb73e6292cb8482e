"""How threads that wait for each other do so. OpenMP reads it when torch is imported.

By OpenMP's own way they spin for a millisecond, which on a busy machine keeps those that they wait
for from running: a training step takes five times as long there. Asleep at once they take a tenth
longer to wake, on a machine of their own. Some microseconds of spinning cost neither (`make
benchmark` shows it).
"""

from __future__ import annotations

from collections.abc import MutableMapping

# turns of a loop that asks whether the others are done
SPINS = "10000"


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let threads spin for a moment before they sleep, unless the environment says otherwise."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
