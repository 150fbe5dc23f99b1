"""A spawned worker (``python -m runner.worker PARENT``): commands on stdin, events on stdout.

The stage's own output goes to stderr, which is the stage's log.
"""

import os
import sys

from runner.worker import parent_watch
from runner.worker.main import serve

if __name__ == "__main__":
    parent_watch.bind_to_parent(int(sys.argv[1]))
    commands = os.fdopen(os.dup(0), "rb")
    events = os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = serve(commands, events)
    sys.stdout.flush()
    # without the libraries' exit handlers: all results are on disk, and the next stage waits
    os._exit(code)
