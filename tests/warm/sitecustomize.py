"""Python imports this at its start: in tests, fork servers and children are forks with their libraries imported.

Most runs in tests are short, and take as long as it takes to import torch, diffusers and transformers: 5 s of
computing. So the fork server of a run is here itself a fork: of a process that all tests share and that has made
the same imports. What comes after the imports is as in any run. There is one shared process for each list of
imports and each environment of the libraries; tests with the mark ``cold`` do without.
"""

import os
import sys

MODULES = [["-P", "-m", f"runner.worker{name}"] for name in ("", ".forkserver", ".layout")]
# torch loads the simulated accelerator when it is imported: not in a process that others share
if (
    sys.orig_argv[1:4] in MODULES
    and os.environ.get("RUNNER_TESTS_WARM")
    and "RUNNER_ACCELERATOR" not in os.environ
):
    import warm_start

    warm_start.hand_over()
