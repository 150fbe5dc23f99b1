"""``runner schema``."""

from __future__ import annotations

import json
import sys

from runner.cli.options import Force, Json, Out
from runner.cli.output import print_json, say
from runner.cli.tailored import refuse_overwriting
from runner.errors import ExitCode


def schema(out: Out = None, force: Force = False, as_json: Json = False) -> int:
    """Write the JSON Schema of manifests, with the stages of the installed plugins, for editors.

    A manifest beside it that starts with `#:schema ./runner.schema.json` is checked by
    editors that know taplo (Even Better TOML).

    Example: runner schema -o runner.schema.json
    """
    from runner.cli.pipelines import discover_plugins
    from runner.files.storage import write_atomically
    from runner.pipeline.json_schema import json_schema, stamp

    refuse_overwriting(out, force=force)
    plugins = discover_plugins()
    made = json_schema(plugins)
    text = f"{json.dumps(made, indent=2, ensure_ascii=False)}\n"
    if out is None:
        if as_json:
            print_json(made)
        else:
            sys.stdout.write(text)
        return ExitCode.DONE
    write_atomically(out, text.encode())
    if as_json:
        print_json({"path": out, "versions": stamp(plugins)})
    else:
        versions = ", ".join(f"{name} {version}" for name, version in stamp(plugins).items())
        say(f"wrote {out} ({versions}); a manifest beside it starts with: #:schema ./{out.name}")
    return ExitCode.DONE
