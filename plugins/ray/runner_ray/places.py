"""Places on a Ray cluster: one for each device of each node, as nodes come, go and have room."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runner.api import AGENT
from runner_ray import relay
from runner_ray.channel import RayChannel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.api import Run
    from runner_ray.params import Ray

ANSWER_SECONDS = 10.0
SILENCE = 20.0  # seconds without a word from the head; after 60, Ray itself ends the process
JOINED_SECONDS = 2.0  # for an answer that is under way
RESTARTS = 3  # of agents of one place, after they were lost


def connect(params: Ray, run: Run) -> RayPlaces:
    """Connect to the cluster.

    Raises:
        ConnectionError: there is none at that address.

    """
    _check_address(params.address)
    with _handlers_kept():
        try:
            ray.init(
                address=params.address,
                namespace=f"runner-{run.name}",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            if params.address != "auto":
                raise
            raise ConnectionError(
                "no Ray cluster runs on this machine: start one (`ray start --head`), or give the head of "
                'another (--set executor.address="HOST:PORT")'
            ) from error
    cloudpickle.register_pickle_by_value(relay)  # nodes need not have this plugin
    return RayPlaces(params)


def _check_address(address: str) -> None:
    """Check that something answers: Ray itself would try for minutes.

    Raises:
        ConnectionError: nothing does.

    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """``ray.init`` replaces the handlers of signals: the run's own stay."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not set from Python
                signal.signal(number, handler)


@dataclass
class _Place:
    """One device of a node."""

    node: str
    name: str
    actor: Any = None
    """What has it, or waits for it."""
    starting: Any = None
    """The answer that comes when the actor has its place."""
    losses: int = 0
    over: bool = False
    """Whether no agent is started here any more."""


class Watch:
    """Asks the head for the cluster's nodes, in a thread: where it is gone, an answer takes for ever."""

    def __init__(self) -> None:
        self._nodes: list[dict[str, Any]] = ray.nodes()
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="ray-nodes", daemon=True)
        self._thread.start()

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as they were a moment ago.

        Raises:
            ConnectionError: the head does not answer.

        """
        if time.monotonic() - self._heard > SILENCE:
            raise ConnectionError(
                f"the head of the Ray cluster has not answered for {SILENCE:.0f} s; "
                "when it is back, run again: what is done counts"
            )
        return self._nodes

    def close(self) -> None:
        """Ask no more: after ``ray.shutdown``, a question would start a cluster here."""
        self._over.set()
        self._thread.join(JOINED_SECONDS)

    def _ask(self) -> None:
        while not self._over.wait(1.0):
            with contextlib.suppress(Exception):  # then it has not answered
                self._nodes = ray.nodes()
                self._heard = time.monotonic()


@dataclass
class RayPlaces:
    """The places of a cluster; see ``runner.api.Places``."""

    params: Ray
    _watch: Watch = field(default_factory=Watch)
    _places: dict[str, _Place] = field(default_factory=dict)
    _held: list[RayChannel] = field(default_factory=list)
    """Channels that are not offered before there are as many as asked for."""
    _begun: bool = False
    _shares: dict[str, int] = field(default_factory=dict)
    """The number of places on the machine of each node: several nodes may be on one."""

    def new(self) -> Sequence[RayChannel]:
        """Channels to agents that have got their places since the last call."""
        self._look()
        for place in self._places.values():
            if place.actor is None and not place.over:
                self._start(place)
            elif place.starting is not None and ray.wait([place.starting], timeout=0)[0]:
                self._started(place)
        if not self._begun and len(self._held) < self.params.nodes:
            self._ask_for_more()
            return []
        self._begun = True
        found, self._held = self._held, []
        return found

    def waiting(self) -> str:
        """How many places there are not yet, and why."""
        starting = sum(place.starting is not None for place in self._places.values())
        more = f"{starting} more waits" if starting == 1 else f"{starting} more wait"
        if not self._begun:
            running = f"{len(self._held)} of {self.params.nodes} agents run on the Ray cluster"
            if starting:
                return f"{running}; {more} for {self._wanted}"
            return f"{running}; there is no other node with {self._wanted}"
        if starting:
            return f"of the agents on the Ray cluster, {more} for {self._wanted}"
        return ""

    def close(self) -> None:
        """Leave the cluster, which ends all that this run has on it."""
        self._watch.close()
        for channel in self._held:
            channel.close()
        ray.shutdown()

    @property
    def _wanted(self) -> str:
        """What an agent takes, in words."""
        params = self.params
        amounts = {"GPU": params.num_gpus, "CPU": params.num_cpus, **params.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount)

    def _look(self) -> None:
        """Take note of nodes that came, and of those that are gone."""
        alive = {node["NodeID"]: node for node in self._watch.nodes() if node["Alive"]}
        for key, place in list(self._places.items()):
            if place.node not in alive:
                del self._places[key]
        for id_, node in alive.items():
            for number in range(self._devices(node["Resources"])):
                key = f"{id_}-{number}"
                host = node["NodeManagerHostname"] or node["NodeManagerAddress"]
                name = f"{host}-{id_[:6]}" + (f"-{number}" if self.params.num_gpus else "")
                self._places.setdefault(key, _Place(id_, name))
        hosts = Counter(alive[place.node]["NodeManagerAddress"] for place in self._places.values())
        self._shares = {id_: hosts[node["NodeManagerAddress"]] for id_, node in alive.items()}

    def _devices(self, resources: dict[str, float]) -> int:
        """The number of agents that a node has room for, if nobody else uses it."""
        params = self.params
        wanted = {"CPU": params.num_cpus, "GPU": params.num_gpus, **params.resources}
        rooms = [int(resources.get(name, 0) / amount) for name, amount in wanted.items() if amount]
        if any(room == 0 for room in rooms):
            return 0
        return min(rooms) if params.num_gpus else 1

    def _start(self, place: _Place) -> None:
        """Ask for a place for an agent."""
        params = self.params
        environment = {"RUNNER_AGENT_SHARE": str(self._shares[place.node]), **params.env}
        if params.folder is not None:
            environment["RUNNER_AGENT_FOLDER"] = params.folder
        place.actor = (
            _actor()
            .options(
                num_cpus=params.num_cpus,
                num_gpus=params.num_gpus,
                resources=params.resources,
                max_restarts=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            )
            .remote(list(AGENT), environment)
        )
        place.starting = place.actor.ready.remote()

    def _started(self, place: _Place) -> None:
        """An actor has its place, or could not be started there."""
        starting, place.starting = place.starting, None
        try:
            ray.get(starting)
        except ray.exceptions.RayError:
            self._lose(place)
            return
        self._held.append(RayChannel(place.name, place.actor, lambda: self._lose(place)))

    def _lose(self, place: _Place) -> None:
        """A place has lost its agent: it may have another one, but not for ever."""
        with contextlib.suppress(Exception):
            ray.kill(place.actor)
        place.actor = place.starting = None
        place.losses += 1
        place.over = place.losses > RESTARTS

    def _ask_for_more(self) -> None:
        """Have a cluster that grows by itself grow to what is asked for."""
        params = self.params
        bundle = {"CPU": params.num_cpus, "GPU": params.num_gpus, **params.resources}
        wanted = {name: amount for name, amount in bundle.items() if amount}
        if len(self._places) < params.nodes:
            with contextlib.suppress(Exception):  # of a cluster that does not
                from ray.autoscaler.sdk import request_resources

                request_resources(bundles=[wanted] * params.nodes)


def _actor() -> Any:
    """The relay as an actor: sending and polling have a thread each, so that neither waits for the other."""
    methods = {
        "send": ray.method(concurrency_group="in")(relay.Relay.send),
        "poll": ray.method(concurrency_group="out")(relay.Relay.poll),
    }
    kind = type("Relay", (relay.Relay,), {**methods, "__module__": relay.__name__})
    return ray.remote(concurrency_groups={"in": 1, "out": 1})(kind)
