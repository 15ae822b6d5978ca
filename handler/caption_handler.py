"""The TorchServe handler: four verbs between the server and the captioner.

TorchServe allows one class in this file. It hands over up to `batchSize` requests at a time; each
gets its own status, and a bad one never touches its neighbours.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ts.context import Context
from ts.metrics.metric_type_enum import MetricTypes

import model
from handler import caption_settings
from handler.caption_batch import Prepared, Spent, caption_batch, too_late
from handler.caption_reply import PHRASES, Failure, reply_body, to_json
from handler.lanes import Lanes
from handler.request_fields import is_describe, is_rest, parse_request
from model.artifact import Artifact, GeneratedCaption
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.image.refusals import FORMATS, ImageRefusal
from model.options import OPTIONS
from model.refusal import Refusal

logger = logging.getLogger(__name__)

#: Pixels that all pictures of a request may be decoded to, as a multiple of a picture's own limit.
#: Large JPEGs count as the fraction of their size that they are decoded at.
DECODED = 2


class CaptionHandler:
    """Captions the pictures of a TorchServe batch."""

    def initialize(self, context: Context) -> None:
        """Load the captioner from the unpacked archive and run it once.

        Raises:
            RuntimeError: The archive cannot be served. TorchServe logs the text of this error
                only; any other kind would end the worker without a word.
        """
        folder = Path(context.system_properties["model_dir"])
        try:
            self.settings = caption_settings.read(context.model_yaml_config or {})
            self.lanes = Lanes(self.settings.threads)
            _check_origin(folder)
            self.artifact = Artifact.load(folder)
            self._warm_up()
        except Exception as error:  # TorchServe would try again for ever, without a word
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RuntimeError(f"this archive cannot be served: {reason[:500]}") from error
        self.name = context.model_name
        self.version = str(context.manifest["model"]["modelVersion"])
        logger.info("captioner %s %s is ready, %s", self.name, self.version, self.settings)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Context) -> list[str]:
        """Answer one batch: a reply for each row, in order."""
        prepared = self.preprocess(rows, context)
        results = self.inference(prepared, context)
        return self.postprocess(prepared, results, context)

    def preprocess(
        self, rows: Sequence[Mapping[str, Any]], context: Context
    ) -> list[Prepared | Failure | None]:
        """Read each request and decode its pictures; None stands for a describe call."""
        begin = time.monotonic()
        self.deadline = begin + self.settings.deadline_seconds
        headers = [context.get_all_request_header(index) for index in range(len(rows))]
        with warnings.catch_warnings():  # restores what decoders on several lanes each restore
            prepared = self.lanes.map(self._prepare, list(zip(rows, headers, strict=True)))
        self._emit(context, "clipcap_decode_seconds", time.monotonic() - begin)
        return prepared

    def inference(
        self, prepared: Sequence[Prepared | Failure | None], context: Context
    ) -> list[list[list[GeneratedCaption]] | Failure]:
        """Caption the sound requests together; the others pass through."""
        spent = Spent()
        sound = [item for item in prepared if isinstance(item, Prepared)]
        captioned = caption_batch(
            self.artifact,
            sound,
            self.settings.images_per_pass,
            self.deadline,
            spent,
            self.lanes,
        )
        if spent.pictures:
            self._emit(context, "clipcap_encode_seconds", spent.encode)
            self._emit(context, "clipcap_generate_seconds", spent.generate)
            self._emit(context, "clipcap_batch_images", spent.pictures)
        return captioned

    def postprocess(
        self,
        prepared: Sequence[Prepared | Failure | None],
        results: Sequence[list[list[GeneratedCaption]] | Failure],
        context: Context,
    ) -> list[str]:
        """Give each request its status and its reply as JSON text."""
        remaining = iter(results)
        replies = []
        for index, item in enumerate(prepared):
            result = next(remaining) if isinstance(item, Prepared) else item
            status = result.status if isinstance(result, Failure) else 200
            context.set_response_status(status, PHRASES[status], idx=index)
            context.set_response_content_type(index, "application/json")
            if not is_rest(context.get_all_request_header(index)):
                # TorchServe's gRPC StreamPredictions reads this header without looking whether
                # it is there, and kills the worker; over REST it would mean a chunked reply.
                context.set_response_header(index, "ts_stream_next", "false")
            if isinstance(result, Failure):
                self._emit(context, "clipcap_errors_total", 1, result.code)
                replies.append(result.body())
            elif isinstance(item, Prepared) and result is not None:
                self._emit(context, "clipcap_captions_total", len(result))
                replies.append(reply_body(item.request, result, self.name, self.version))
            else:
                replies.append(to_json(self._description()))
        return replies

    def _prepare(
        self, received: tuple[Mapping[str, Any], Mapping[str, Any]]
    ) -> Prepared | Failure | None:
        """Read one request; whatever it does to us, its neighbours do not notice."""
        try:
            return self._read(*received)
        except Exception:  # what nobody foresaw would else fail the whole batch with 503
            logger.exception("a request could not be read")
            return Failure(
                500, "internal", "this request met a fault of the server; the log has more"
            )

    def _read(
        self, row: Mapping[str, Any], headers: Mapping[str, Any]
    ) -> Prepared | Failure | None:
        if is_describe(row, headers):
            return None
        try:
            request = parse_request(
                row, headers, self.artifact.defaults, self.settings.max_pictures
            )
            for options in request.options:
                self.artifact.check(options)
        except Refusal as refusal:
            return Failure.of(refusal)
        pixels, decoded = [], 0
        side = self.artifact.preprocessing.size
        limit = DECODED * self.settings.max_pixels
        for place, picture in enumerate(request.pictures):
            if time.monotonic() > self.deadline:
                return too_late()
            try:
                image = load_image(picture, self.settings.max_pixels, side)
            except ImageRefusal as refusal:
                return Failure.of(refusal, place if len(request.pictures) > 1 else None)
            decoded += image.width * image.height
            if decoded > limit:
                return Failure(
                    413,
                    "image_too_large",
                    f"the first {place + 1} pictures of this request have {decoded} pixels; the "
                    f"limit is {limit} for all of them; send fewer at a time, or smaller versions",
                )
            pixels.append(to_pixels(image, self.artifact.preprocessing))
        return Prepared(request, torch.stack(pixels))

    def _warm_up(self) -> None:
        """Run the captioner as requests will, so that the first of them is not the slow one."""
        side = self.artifact.preprocessing.size
        short = dataclasses.replace(self.artifact.defaults, max_tokens=3, min_tokens=0)

        def caption(pixels: torch.Tensor) -> None:
            self.artifact.caption(self.artifact.encode(pixels), short)

        self.lanes.map(caption, [torch.zeros(1, 3, side, side)])

    def _description(self) -> dict[str, Any]:
        """What `GET /models/clipcap?customized=true` adds to TorchServe's own description."""
        return {
            "model": {"name": self.name, "version": self.version},
            "formats": list(FORMATS),
            "max_pixels": self.settings.max_pixels,
            "max_pictures": self.settings.max_pictures,
            "options": {
                name: {"default": default, "from": OPTIONS[name].low, "to": OPTIONS[name].high}
                for name, default in self.artifact.defaults.to_dict().items()
            },
            "captioner": self.artifact.info,
        }

    def _emit(self, context: Context, name: str, value: float, *dimensions: str) -> None:
        """Record one value of a metric that `metrics.yaml` declares."""
        kind = MetricTypes.COUNTER if name.endswith("_total") else MetricTypes.HISTOGRAM
        metric = context.metrics.get_metric(name, kind)
        metric.add_or_update(value, [context.model_name, "Model", *dimensions])


def _check_origin(folder: Path) -> None:
    """Refuse to run with another copy of our code than the archive's own."""
    origin = Path(os.fspath(model.__file__ or "")).resolve()
    if folder.resolve() not in origin.parents:
        raise Refusal(
            f"the package `model` comes from {origin.parent}, not from the archive in {folder}; "
            "start TorchServe without PYTHONPATH"
        )
