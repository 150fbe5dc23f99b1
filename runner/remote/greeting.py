"""The handshake with a node: describes the run to its agent, and compares versions, stages and models."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.files.storage import storage_errors
from runner.machine.cpu import core_count
from runner.machine.describe import installed_with
from runner.remote.messages import INPUT, PROTOCOL, Hello, Piece
from runner.remote.tasks import InputFiles, samples
from runner.rundir.directory import SHARED_WORD
from runner.work.keys import Prints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.remote.messages import Welcome
    from runner.remote.node import Node
    from runner.rundir.directory import RunDirectory


@dataclass(frozen=True)
class Refusal:
    """Why a node cannot take part, and the exit code of that."""

    code: ExitCode
    reason: str


@dataclass
class Greeter:
    """Greets nodes, and compares what they have with this machine, or with the first node."""

    pipeline: Pipeline
    directory: RunDirectory
    fingerprints: Sequence[Prints] | None
    """Of what each stage loads; None until a node tells them."""
    _versions: dict[str, str] = field(init=False)
    _word: str = field(default_factory=lambda: secrets.token_hex(16))
    _inputs: InputFiles = field(default_factory=InputFiles)

    def __post_init__(self) -> None:
        names = [self.pipeline.plugins.distribution_of(s.spec.name) for s in self.pipeline.stages]
        self._versions = installed_with(names)
        self._samples = samples(self.pipeline, self._inputs)

    def write_word(self) -> None:
        """Write a probe file into the run directory: nodes that can read it share the directory.

        Raises:
            StorageError: it cannot be written.

        """
        word = self._word_file
        with storage_errors(word):
            word.write_text(self._word)

    @property
    def _word_file(self) -> Path:
        return self.directory.path / f"{SHARED_WORD}{self._word}"

    def greet(self, node: Node) -> None:
        """Send the samples' input files, then ``Hello``, which the agent answers."""
        manifest, cores = self.pipeline.manifest, core_count()
        for name, path in self._inputs.paths.items():
            node.outbox.put_file(Piece(INPUT, "", "", name, 0), path)
            node.held.add(name)
        node.outbox.put(
            Hello(
                protocol=PROTOCOL,
                node=node.name,
                path=str(manifest.path.absolute()),
                manifest=manifest.text,
                sets=[override.text for override in manifest.overrides],
                threads=[stage.budget.threads or cores for stage in self.pipeline.stages],
                samples=self._samples,
                run=str(self.directory.path),
                word=self._word,
            )
        )

    def refusal(self, welcome: Welcome) -> Refusal | None:
        """Why a node cannot take part although its agent is ready; None if it can."""
        if welcome.protocol != PROTOCOL:
            return Refusal(ExitCode.PLUGIN, f"it speaks protocol {welcome.protocol}, this run {PROTOCOL}")
        if [offer.name for offer in welcome.stages] != [stage.name for stage in self.pipeline.stages]:
            return Refusal(ExitCode.PLUGIN, "it has other stages")
        unlike = list(_unlike(welcome.versions, self._versions))
        for offer, stage in zip(welcome.stages, self.pipeline.stages, strict=True):
            if offer.version != stage.spec.version:
                unlike.append(f"{stage.spec.name} version {offer.version}, not {stage.spec.version}")
        if unlike:
            return Refusal(ExitCode.PLUGIN, f"it has {', '.join(unlike)}")
        found = [Prints(offer.fingerprint, offer.loras) for offer in welcome.stages]
        if self.fingerprints is None:
            self.fingerprints = found
        other = [
            offer.name
            for offer, own, known in zip(welcome.stages, found, self.fingerprints, strict=True)
            if own != known
        ]
        if other:
            reason = f"its model's files differ, for {', '.join(other)}"
            return Refusal(ExitCode.MODEL, reason)
        # libraries that this machine lacks: the first node's versions count
        self._versions = {**welcome.versions, **self._versions}
        return None

    def is_shared(self, node: Node, welcome: Welcome) -> bool:
        """Whether a node sees the run directory, and this machine what the node writes there."""
        if not welcome.answer:
            return False
        name = re.sub("[^A-Za-z0-9_-]", "_", node.name)
        answer = self._word_file.with_name(f"{self._word_file.name}-{name}")
        try:
            return answer.read_text() == welcome.answer
        except OSError:
            return False


def _unlike(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Versions that differ. A library that this machine does not have may be of any version."""
    return [
        f"{name} {theirs.get(name, 'missing')}, not {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
