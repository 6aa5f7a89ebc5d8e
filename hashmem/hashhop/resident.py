"""How much memory a process holds at its highest."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")


class PeakMemory:
    """The highest resident memory of this process from now on, in bytes.

    Resident is all that lies in memory now: what was there before, libraries, and pages of mapped
    files too; not other processes. Linux's high-water mark (VmHWM) is set back to what is
    resident now, for the whole process, so only one of these can count at a time. Where that is not
    possible, the mark of the process's whole life is read.

    >>> peak = PeakMemory()
    >>> block = b"x" * 50_000_000
    >>> peak.read() > len(block)
    True
    """

    def __init__(self) -> None:
        with suppress(OSError):  # another system, or /proc is not writable
            (_PROCESS / "clear_refs").write_text("5")

    def read(self) -> int:
        """Return the most bytes resident so far."""
        try:
            for line in (_PROCESS / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024  # the kernel counts in KiB
        except OSError:
            pass
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
