"""What ends the worker processes of the input from outside, in words and with the way on."""

from __future__ import annotations

import re
import signal

from jdet.atomic_files import FULL, what_is_full
from jdet.types import DataError

GO_ON = "the same command goes on from the last checkpoint"


def explain(error: Exception) -> DataError | None:
    """What a failure of the workers means, or None where it is another one.

    grain says of a worker that is gone nothing but its exit code, and of shared memory that is full what
    the system says of any disk.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return DataError(f"the data workers ended: {what_is_full(error, '/dev/shm')}; {GO_ON}")
    gone = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    if gone is None:
        return None
    code = int(gone[1])
    if code == -signal.SIGBUS:
        # The system promises more shared memory than there is, and only writing to it fails.
        full = what_is_full(OSError(FULL[0], "no room"), "/dev/shm")
        return DataError(f"a data worker ended by SIGBUS, without shared memory: {full}; {GO_ON}")
    how = f"exit code {code}"
    if code < 0:
        how = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    why = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
    return DataError(
        f"a data worker was ended by {how}{why}; {GO_ON}. Fewer workers take less memory "
        "(--config.data.workers=1; 0 reads in threads)"
    )
