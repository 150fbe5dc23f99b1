"""The parameters of ``[executor]`` with ``uses = "ray"``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Ray(BaseModel):
    """Which cluster, and what of each node an agent takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("auto", min_length=1, description="the cluster: auto, or HOST:PORT of its head")
    nodes: int = Field(1, ge=1, description="agents that a run waits for before it begins; more may come")
    num_gpus: float = Field(
        0,
        ge=0,
        description="GPUs of an agent: 1 for one on each; 0 for one on each machine, on its processor",
    )
    num_cpus: float = Field(1, ge=0, description="processors of an agent, as Ray counts them")
    resources: dict[str, float] = Field(
        default_factory=dict, description="custom resources of an agent; nodes without them take no part"
    )
    folder: str | None = Field(
        None, description="the manifest's folder on the nodes, for models in folders; default: as here"
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="environment variables of agents; no place for secrets"
    )
