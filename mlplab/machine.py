"""What this machine does beside a training, and how much memory that takes, where the system tells."""

import contextlib
import math
import os
from pathlib import Path


class Others:
    """What other processes do on this machine from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float:
        """Cores that other processes kept busy, on average; NaN where the system does not tell."""
        (wall, busy, own), (wall_before, busy_before, own_before) = self._now(), self._before
        return max(0.0, (busy - busy_before) - (own - own_before)) / max(wall - wall_before, 1e-9)

    def _now(self) -> tuple[float, float, float]:
        busy = math.nan
        with contextlib.suppress(OSError):
            # proc(5): user, nice, system, idle, iowait, irq, softirq, steal, in ticks over all cores.
            ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
            busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        return times.elapsed, busy, times.user + times.system


def reset_peak_memory() -> None:
    """Has the peak of this process's memory begin anew."""
    # Linux forgets the peak when told so (proc(5), clear_refs); elsewhere the peak is the process's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The most memory the process held since the reset, in MB; NaN where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return math.nan
