"""`make fleet`: what the fleet promises, section by section. All of them, or those named: `python -m tests.fleet circuits`.

A section is a function from `say`, which prints progress, to findings. Exits 1 when a promise is broken.
"""

import sys
import time
from collections.abc import Callable

from tests.fleet import balance, balance_live, circuits, gates, hedges, lanes, overload
from tests.support.findings import Finding, report, say

SECTIONS: dict[str, Callable[[Callable[[str], None]], list[Finding]]] = {
    "circuits": circuits.run,
    "balance": balance.run,
    "balance-live": balance_live.run,
    "gates": gates.run,
    "hedges": hedges.run,
    "lanes": lanes.run,
    "overload": overload.run,
    "overload-mixed": overload.run_mixed,
}


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in SECTIONS]:
        say(f"no section {', '.join(unknown)}; known: {', '.join(SECTIONS)}")
        return 64
    codes = []
    for name in names or SECTIONS:
        began_s = time.monotonic()
        findings = SECTIONS[name](say)
        codes.append(report(f"{name} ({time.monotonic() - began_s:.0f} s)", findings))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
