"""The parameters of ``[executor]`` with ``uses = "ray"``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _amount(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("Ray divides a single one only: above 1 it must be a whole number")
    return value


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_amount)]
"""An amount of what Ray's nodes have."""


class Ray(BaseModel):
    """Which cluster, and what of each node an agent takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("auto", min_length=1, description="the cluster: auto, or HOST:PORT of its head")
    nodes: int = Field(1, ge=1, description="agents that a run waits for before it begins; more may come")
    num_gpus: Amount = Field(
        0,
        description="GPUs of an agent: 1 for one on each; 0 for one on each machine, on its processor",
    )
    num_cpus: Amount = Field(1, description="processors of an agent, as Ray counts them")
    resources: dict[str, Amount] = Field(
        default_factory=dict, description="custom resources of an agent; nodes without them take no part"
    )
    folder: str | None = Field(
        None, description="the manifest's folder on the nodes, for models in folders; default: as here"
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="environment variables of agents; no place for secrets"
    )
