"""A Ray cluster of several nodes on this machine, as a process that obeys: ``add``, ``ids``, ``remove NODE``.

Each line that it reads is a command, and each that it writes the JSON answer. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20}


def main(nodes: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    members = [cluster.head_node, *(cluster.add_node(**NODE) for _ in range(nodes - 1))]
    cluster.wait_for_nodes()

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer(cluster.address)
    try:
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "add":
                members.append(cluster.add_node(**NODE))
                answer(members[-1].node_id)
            elif command == "ids":
                answer([member.node_id for member in members])
            elif command == "remove":  # without grace: its raylet is killed
                (victim,) = [member for member in members if member.node_id.startswith(arguments[0])]
                members.remove(victim)
                for process in victim.all_processes["raylet"]:
                    os.kill(process.process.pid, signal.SIGKILL)
                cluster.remove_node(victim, allow_graceful=False)
                answer(victim.node_id)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
