"""What Ray Serve deploys: replicas of the captioner, and one process that adds up their metrics.

`python -m scale.serve` runs `build`; a config of Serve, as in `deploy/kubernetes/rayservice.yaml`,
names it as `import_path: scale.serving.application:build` and gives its settings as `args`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, model_validator
from ray import serve
from ray.serve import Application

import handler
from handler.caption_settings import cores
from scale.serving.counts import Counts
from scale.serving.replica import Replica

#: The settings that both servers share, with their meaning.
CONFIG = Path(handler.__file__).parent / "model-config.yaml"
#: Names of the deployments.
CAPTIONER, COUNTS = "captioner", "counts"
#: Requests that Serve gives a replica at a time. A replica refuses those that are too many itself,
#: with a reply as of any other error; Serve's own limit would let them wait without a word.
ALL_REQUESTS = 10_000
#: Seconds from a health check to the next, and for its answer.
HEALTH_PERIOD, HEALTH_TIMEOUT = 5.0, 30.0
#: Seconds of many requests before a replica is added, and of few before one is removed.
UPSCALE_SECONDS, DOWNSCALE_SECONDS = 10.0, 120.0


class ServingSettings(BaseModel, extra="forbid", frozen=True):
    """What is served, and by how many."""

    artifact: str = Field(description="folder of an exported captioner, on every node")
    config: str = Field(str(CONFIG), description="model-config.yaml: batches, limits, deadlines")
    name: str = Field("clipcap", pattern=r"[A-Za-z0-9._-]+", description="of the model")
    version: str = Field("1.0", description="of the model, for replies")
    min_replicas: int = Field(1, ge=1, description="fewest processes that caption")
    max_replicas: int = Field(1, ge=1, description="most of them")
    threads: int = Field(
        default_factory=cores, ge=1, description="threads of torch, and processors, of each"
    )
    queue_size: int = Field(64, ge=0, description="requests that may wait for a replica's batch")
    max_request_bytes: int = Field(20_971_520, ge=1, description="most bytes of a request")

    @model_validator(mode="after")
    def _check(self) -> ServingSettings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}; it must be at least min_replicas, "
                f"{self.min_replicas}"
            )
        return self

    def of_the_handler(self) -> dict[str, Any]:
        """The file `config`, with this number of threads."""
        found: dict[str, Any] = yaml.safe_load(Path(self.config).read_text())
        found["handler"] = {**found.get("handler", {}), "threads": self.threads}
        return found


def build(settings: ServingSettings) -> Application:
    """The application.

    Args:
        settings: From a command line, or the `args` of a Serve config.
    """
    config = settings.of_the_handler()
    counts = serve.deployment(
        Counts,
        name=COUNTS,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=ALL_REQUESTS,
        logging_config={"enable_access_log": False},
    ).bind(settings.name)
    fixed = settings.min_replicas == settings.max_replicas
    number: dict[str, Any] = {"num_replicas": settings.min_replicas}
    if not fixed:
        number = {
            "autoscaling_config": {
                "min_replicas": settings.min_replicas,
                "max_replicas": settings.max_replicas,
                # More than one batch in a replica: some of them wait.
                "target_ongoing_requests": int(config["batchSize"]),
                "upscale_delay_s": UPSCALE_SECONDS,
                "downscale_delay_s": DOWNSCALE_SECONDS,
            }
        }
    return serve.deployment(
        Replica,
        name=CAPTIONER,
        ray_actor_options={"num_cpus": settings.threads},
        max_ongoing_requests=ALL_REQUESTS,
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_TIMEOUT,
        # Requests in hand are answered, or refused by their deadline.
        graceful_shutdown_timeout_s=config["handler"]["deadline_seconds"] + 10.0,
        max_constructor_retry_count=3,
        logging_config={"enable_access_log": False},
        **number,
    ).bind(settings.model_dump(), config, counts)
