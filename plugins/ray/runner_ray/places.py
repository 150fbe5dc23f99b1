"""Places on a Ray cluster: one for each device of each node, as nodes come, go and have room."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runner.api import AGENT
from runner_ray import relay
from runner_ray.channel import RayChannel
from runner_ray.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.api import Run
    from runner_ray.params import Ray

ANSWER_SECONDS = 10.0
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
    problem: str = ""
    """Why the last agent could not be started; empty if it could."""


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
            self._check_any()
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
            if problems := self._problems():
                return f"{running}; {problems}"
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
        except ray.exceptions.RayError as error:
            place.problem = str(error).strip().rpartition("\n")[2]
            self._lose(place)
            return
        place.problem = ""
        self._held.append(RayChannel(place.name, place.actor, lambda: self._lose(place)))

    def _lose(self, place: _Place) -> None:
        """A place has lost its agent: it may have another one, but not for ever.

        What runs of the old one is ended by its channel: the actor that has started it has to do that.
        """
        place.actor = place.starting = None
        place.losses += 1
        place.over = place.losses > RESTARTS

    def _check_any(self) -> None:
        """Check that an agent can be started somewhere.

        Raises:
            RuntimeError: it was tried on all nodes that there are, several times.

        """
        if self._places and not self._held and all(place.over for place in self._places.values()):
            raise RuntimeError(self._problems())

    def _problems(self) -> str:
        """Where no agent can be started, and why; empty if there is no such node."""
        found = [f"{place.name}: {place.problem}" for place in self._places.values() if place.over]
        return f"agents cannot be started: {'; '.join(found)}" if found else ""

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
