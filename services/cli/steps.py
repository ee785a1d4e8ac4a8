"""What `baton up` says: one line per step, with the seconds since its start."""

import time
from dataclasses import dataclass, field

from rich.console import Console


@dataclass
class Steps:
    """A console and a start."""

    console: Console
    began_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began_s

    def say(self, text: str) -> None:
        self.console.print(f"{self.elapsed_s:5.1f} s  {text}", markup=False, highlight=False, soft_wrap=True)
