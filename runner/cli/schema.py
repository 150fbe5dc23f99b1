"""``runner schema``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from runner.cli.common import print_json, say, warn
from runner.cli.tailored import refuse_overwriting
from runner.errors import ExitCode
from runner.files.storage import write_atomically
from runner.pipeline.json_schema import json_schema, stamp
from runner.plugins import discover

if TYPE_CHECKING:
    from pathlib import Path


def schema(out: Path | None, *, force: bool, as_json: bool) -> int:
    """Write the JSON Schema of manifests, to a file or to stdout.

    Raises:
        RunnerError: the file is there already, or cannot be written.

    """
    refuse_overwriting(out, force=force)
    plugins = discover()
    warn(plugins)
    made = json_schema(plugins)
    if out is None:
        if as_json:
            print_json(made)
        else:
            sys.stdout.write(f"{json.dumps(made, indent=2, ensure_ascii=False)}\n")
        return ExitCode.DONE
    write_atomically(out, f"{json.dumps(made, indent=2, ensure_ascii=False)}\n".encode())
    if as_json:
        print_json({"path": str(out), "versions": stamp(plugins)})
    else:
        versions = ", ".join(f"{name} {version}" for name, version in stamp(plugins).items())
        say(f"wrote {out} ({versions}); a manifest beside it starts with: #:schema ./{out.name}")
    return ExitCode.DONE
