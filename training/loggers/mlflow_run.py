"""A run in MLflow: in a SQLite file of this machine, or on a tracking server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Before the import, which would send reports of how it is used.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
from pytorch_lightning.loggers import MLFlowLogger  # noqa: E402

from training.config import Loggers  # noqa: E402
from training.loggers.run import Identity  # noqa: E402
from training.loggers.samples import Sample  # noqa: E402


class MlflowRun:
    """See `training.loggers.run.Run`."""

    def __init__(self, settings: Loggers, identity: Identity) -> None:
        folder = Path(settings.folder).resolve()
        uri = settings.mlflow or os.environ.get("MLFLOW_TRACKING_URI")
        # A tracking server knows itself where its artifacts lie.
        artifacts = None if uri else (folder / "mlflow-artifacts").as_uri()
        self.uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
        folder.mkdir(parents=True, exist_ok=True)
        before = identity.ids.get("mlflow")
        self.logger = MLFlowLogger(
            experiment_name=settings.project,
            run_name=identity.name,
            tracking_uri=self.uri,
            artifact_location=artifacts,
            run_id=before,
        )
        self.run_id = str(self.logger.run_id)
        self.client = self.logger.experiment
        identity.ids["mlflow"] = self.run_id
        self.resumed = before is not None
        if self.resumed:  # the interrupted part may have been marked as failed
            self.client.update_run(self.run_id, status="RUNNING")

    def describe(self, values: Mapping[str, Any], settings: str) -> None:
        """Parameters, and the settings as a file.

        MLflow refuses another value for a parameter; a resumed run keeps those of its beginning.
        """
        if not self.resumed:
            self.logger.log_hyperparams(dict(values))
        self.client.log_text(self.run_id, settings, "settings.yaml")

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """A table; rows of all validations are in one."""
        rows = {
            "step": [step] * len(samples),
            "id": [each.image_id for each in samples],
            "picture": [mlflow.Image(np.asarray(each.picture)) for each in samples],
            "caption": [each.caption for each in samples],
            "references": ["\n".join(each.references) for each in samples],
        }
        self.client.log_table(self.run_id, rows, "captions.json")

    def keep(self, folder: Path) -> None:
        """Artifacts in the folder `checkpoint`."""
        self.client.log_artifacts(self.run_id, str(folder), "checkpoint")

    def close(self, succeeded: bool) -> str:
        """Mark the run as ended."""
        self.client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")
        seen = f" (to see it: mlflow ui --backend-store-uri {self.uri})"
        return f"MLflow: run {self.run_id} in {self.uri}{'' if '//' not in self.uri else seen}"
