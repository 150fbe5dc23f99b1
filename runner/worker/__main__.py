"""A worker in a process of its own (``python -m runner.worker PARENT``): commands on stdin, events on stdout.

What the stage prints goes to stderr, which is the stage's log.
"""

import os
import sys

from runner.worker import parent_watch as lifeline
from runner.worker.main import serve

if __name__ == "__main__":
    lifeline.bind_to_parent(int(sys.argv[1]))
    commands = os.fdopen(os.dup(0), "rb")
    events = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = serve(commands, events)
    sys.stdout.flush()
    # exit without the libraries' farewell: everything is on disk, and the next stage waits
    os._exit(code)
