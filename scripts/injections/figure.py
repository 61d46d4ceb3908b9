"""What a campaign reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

PROMISES = {
    1: "No lost work",
    2: "Exact resume",
    3: "Right numbers",
    4: "No raw traceback",
    5: "Runs nothing it should not",
    6: "Never hangs",
    7: "Stops politely",
}


class LeftOut(Exception):
    """A fault that cannot be injected on this machine, with the reason."""


@dataclass
class Figure:
    """promise: its number in PROMISES. injected: which fault. count: how many of them. text: what came of
    them. failures: one line for each that broke the promise."""

    promise: int
    injected: str
    count: int
    text: str
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """A campaign that injected nothing proves nothing."""
        return self.count > 0 and not self.failures

    def plain(self) -> dict:
        return {**asdict(self), "ok": self.ok}
