"""How long a model is trained: a time or a number of iterations, fixed before it starts."""

import re
from dataclasses import dataclass

SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """What a model's training may take, all its stages together.

    Seconds of its iterations, CPU time of the process on a CPU and wall time on a GPU; or, where
    they are None, a number of iterations.
    """

    seconds: float | None = None
    iterations: int = 0

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "90s", "20m", "1.5h" or "iters:2000".

        Raises ValueError for anything else, and for 0.

        >>> Budget.parse("20m").seconds, Budget.parse("iters:2000").iterations
        (1200.0, 2000)
        """
        time = re.fullmatch(r"(\d+(?:\.\d*)?)([smh])", text)
        if time and float(time[1]) > 0:
            return cls(seconds=float(time[1]) * SECONDS[time[2]])
        iterations = re.fullmatch(r"iters:(\d+)", text)
        if iterations and int(iterations[1]) > 0:
            return cls(iterations=int(iterations[1]))
        raise ValueError(
            f"--budget {text!r}: give a time above 0 such as 90s, 20m or 1.5h, or a number of "
            "iterations such as iters:2000"
        )

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds else f"{self.iterations} iterations"
