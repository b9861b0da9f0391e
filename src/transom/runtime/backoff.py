"""How long to wait before trying again: exponential, capped, with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from dataclasses import dataclass, field

from transom.runtime.randomness import Randomness


@dataclass
class Backoff:
    """Delays that double from `first_seconds` to `most_seconds`; `reset` after a success."""

    randomness: Randomness
    first_seconds: float = 0.05
    most_seconds: float = 5.0
    attempts: int = field(default=0, init=False)

    def next_seconds(self) -> float:
        """The next delay: half of it fixed, half of it random, so that it is never nothing."""
        ceiling = min(self.most_seconds, self.first_seconds * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return ceiling / 2 + self.randomness.below(ceiling / 2)

    def reset(self) -> None:
        """Begin again from the first delay."""
        self.attempts = 0
