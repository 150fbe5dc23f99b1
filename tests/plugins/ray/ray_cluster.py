"""A Ray cluster of several nodes on this machine, as a process that obeys.

``add`` a node, tell their ``ids``, ``remove`` one, ``hold`` all processors until ``free``, ``behead`` it. Each line
that it reads is a command, and each that it writes the JSON answer. It ends with its stdin. The head has no
processors, so that agents are on the other nodes: with the head the cluster itself would be gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20}
HEAD: dict[str, Any] = {**NODE, "num_cpus": 0, "include_dashboard": False}


def main(nodes: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster: Any = Cluster(initialize_head=True, head_node_args=HEAD)
    members = [cluster.add_node(**NODE) for _ in range(nodes)]
    cluster.wait_for_nodes()

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer(cluster.address)
    held: list[Any] = []
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
            elif command == "behead":
                for process in cluster.head_node.all_processes["gcs_server"]:
                    os.kill(process.process.pid, signal.SIGKILL)
                answer(None)
            elif command == "hold":
                ray.init(address=cluster.address, logging_level="ERROR")
                held = [_holder().remote() for _ in members]
                answer(ray.get([one.ready.remote() for one in held]))
            elif command == "free":
                for one in held:
                    ray.kill(one)
                ray.shutdown()
                answer(len(held))
    finally:
        cluster.shutdown()


def _holder() -> Any:
    """An actor that has a processor for as long as it lives."""

    class Holder:
        def ready(self) -> bool:
            return True

    return ray.remote(num_cpus=1)(Holder)


if __name__ == "__main__":
    main(int(sys.argv[1]))
