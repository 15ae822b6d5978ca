"""What is TorchServe's: its handler, its context, and how it is told of a metric.

TorchServe gives it up to `batchSize` requests at a time; `batch_captioner.py` answers them.
TorchServe requires that this file defines one class.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ts.context import Context
from ts.metrics.metric_type_enum import MetricTypes

import model
from handler import caption_settings
from handler.batch_captioner import BatchCaptioner, ReceivedRequest
from handler.measures import COUNTERS, GAUGES
from handler.replies.failure import PHRASES
from handler.requests.fields import is_rest
from model.artifact import Artifact
from model.refusal import Refusal

logger = logging.getLogger(__name__)

#: First words of the error of an archive that cannot be served. `deploy/`, which must not import
#: this package, searches the worker's log for them; a test compares the two.
CANNOT_BE_SERVED = "this archive cannot be served"


class CaptionHandler(BatchCaptioner):
    """Captions the pictures of a TorchServe batch."""

    def initialize(self, context: Context) -> None:
        """Load the captioner from the unpacked archive and run it once.

        Args:
            context: TorchServe's; names the folder and perhaps a GPU, and holds the parsed
                `model-config.yaml`.

        Raises:
            RuntimeError: The archive cannot be served. TorchServe logs the text of this kind of
                error only; any other would end the worker without a reason in the log.
        """
        folder = Path(context.system_properties["model_dir"])
        self.context = context
        try:
            settings, device = caption_settings.on_device(
                caption_settings.read(context.model_yaml_config or {}),
                context.system_properties.get("gpu_id"),
            )
            _check_origin(folder)
            self.load(
                lambda: Artifact.load(folder, torch.device(device)),
                settings,
                context.model_name,
                str(context.manifest["model"]["modelVersion"]),
                self._record,
            )
            logger.info("it runs on %s", device)
        except Exception as error:  # of any kind: TorchServe would only start the worker again
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RuntimeError(f"{CANNOT_BE_SERVED}: {reason[:500]}") from error

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Context) -> list[str | bytes]:
        """Answer one batch.

        Args:
            rows: The fields of each request: name -> bytes, text or parsed JSON.
            context: TorchServe's; has the headers of each request, and takes its status.

        Returns:
            For each row its reply: JSON text, or the PNG file of an explanation.
        """
        self.context = context
        requests = [
            ReceivedRequest(
                row, context.get_all_request_header(index), context.get_request_id(index)
            )
            for index, row in enumerate(rows)
        ]
        replies = self.answer(requests)
        for index, (request, reply) in enumerate(zip(requests, replies, strict=True)):
            context.set_response_status(reply.status, PHRASES[reply.status], idx=index)
            context.set_response_content_type(index, reply.content_type)
            for name, value in reply.headers.items():
                context.set_response_header(index, name, value)
            if not is_rest(request.headers):
                # TorchServe's gRPC StreamPredictions reads this header without checking that it is
                # there, which would end the worker; over REST it would mean a chunked reply.
                context.set_response_header(index, "ts_stream_next", "false")
        return [reply.body for reply in replies]

    def _record(self, name: str, value: float, label: str = "") -> None:
        """Record a value with the context, which writes a line that TorchServe reads."""
        kind = MetricTypes.HISTOGRAM
        if name in COUNTERS or name in GAUGES:
            kind = MetricTypes.COUNTER if name in COUNTERS else MetricTypes.GAUGE
        own = worker_name(sys.argv) if name in GAUGES else label
        metric = self.context.metrics.get_metric(name, kind)
        metric.add_or_update(value, [self.context.model_name, "Model", *([own] if own else [])])


def worker_name(words: Sequence[str]) -> str:
    """The name of a worker, such as `W-9000`; the one that replaces it has the same.

    Args:
        words: The worker's command line, which has the socket that TorchServe reaches it by.
    """
    for option, value in zip(words, words[1:], strict=False):
        if option in ("--sock-name", "--port") and (number := re.search(r"\d+$", value)):
            return f"W-{number[0]}"
    return "W-0"


def _check_origin(folder: Path) -> None:
    """Refuse to run with another copy of our code than the archive's own."""
    origin = Path(os.fspath(model.__file__ or "")).resolve()
    if folder.resolve() not in origin.parents:
        raise Refusal(
            f"the package `model` comes from {origin.parent}, not from the archive in {folder}; "
            "start TorchServe without PYTHONPATH"
        )
