"""The TorchServe handler: initialize, then preprocess, inference and postprocess for each batch.

TorchServe gives it up to `batchSize` requests at a time. Each gets a status and a reply of its own:
what one request makes fail, in any of the steps, fails that request alone. TorchServe requires that
this file defines one class.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import torch
from ts.context import Context

import model
from handler import caption_settings, measures
from handler.admission import Admission
from handler.caption_batch import caption_images
from handler.capture.capturing import Capture
from handler.decoding_memory import DecodingMemory
from handler.explanation import (
    BatchExplanations,
    explanation_fields,
    explanation_limits,
    explanation_png,
)
from handler.parallel_passes import ParallelPasses
from handler.replies.caption_reply import failed_body, reply_body, to_json
from handler.replies.extras import check_extras, extras_limits
from handler.replies.failure import PHRASES
from handler.request_images import decode_images
from handler.request_result import ImageResult, RequestResult, record_failure
from handler.requests.caption_request import Form, deadline_passed
from handler.requests.fields import (
    deadline_of,
    form_of_headers,
    is_rest,
    parse_request,
    read_body,
)
from handler.telemetry import request_log, tracing
from handler.telemetry.phases import Phases
from model.artifact import Artifact
from model.image.refusals import FORMATS
from model.options import OPTIONS, SYNONYMS
from model.refusal import Refusal

logger = logging.getLogger(__name__)

#: First words of the error of an archive that cannot be served. `deploy/`, which must not import
#: this package, searches the worker's log for them; a test compares the two.
CANNOT_BE_SERVED = "this archive cannot be served"


class CaptionHandler:
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
        try:
            self.settings, device = caption_settings.on_device(
                caption_settings.read(context.model_yaml_config or {}),
                context.system_properties.get("gpu_id"),
            )
            # Before loading, which packs as many layers at a time. torch's own number is that of
            # the machine's cores, whatever a container may use of them.
            torch.set_num_threads(self.settings.threads)
            self.passes = ParallelPasses(self.settings.threads)
            self.decoding_memory = DecodingMemory(self.settings.max_pixels)
            self.admission = Admission(
                self.settings.images_per_pass, self.settings.explanation_seconds
            )
            _check_origin(folder)
            self.artifact = Artifact.load(folder, torch.device(device))
            self._warm_up()
            self.name = context.model_name
            self.version = str(context.manifest["model"]["modelVersion"])
            self.capture = self._start_capture()
            self.tracing = tracing.from_environment()
        except Exception as error:  # of any kind: TorchServe would only start the worker again
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RuntimeError(f"{CANNOT_BE_SERVED}: {reason[:500]}") from error
        measures.start(context)
        logger.info(
            "captioner %s %s is ready on %s, %s", self.name, self.version, device, self.settings
        )

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Context) -> list[str | bytes]:
        """Answer one batch.

        Args:
            rows: The fields of each request: name -> bytes, text or parsed JSON.
            context: TorchServe's; has the headers of each request, and takes its status.

        Returns:
            For each row its reply: JSON text, or the PNG file of an explanation.
        """
        self.phases = Phases()
        deadline = time.monotonic() + self.settings.deadline_seconds
        results = self.preprocess(rows, context, deadline)
        self.inference(results, context, deadline)
        replies = self.postprocess(results, context)
        self._tell(results, context)
        return replies

    def preprocess(
        self, rows: Sequence[Mapping[str, Any]], context: Context, deadline: float
    ) -> list[RequestResult]:
        """Read the requests, admit those that there is time for, and decode their pictures.

        Several requests are read, and then decoded, in parallel.

        Returns:
            For each row its request and images, or its failure.
        """
        begin = time.monotonic()

        def read(index: int) -> RequestResult:
            result = RequestResult()
            with record_failure(result):
                headers = context.get_all_request_header(index)
                result.form = form_of_headers(headers)
                result.deadline = min(deadline, deadline_of(headers))
                if time.monotonic() >= result.deadline:
                    raise deadline_passed()
                body = read_body(rows[index], headers)
                result.form = body.form
                result.request = parse_request(
                    body, self.artifact.defaults, self.settings.max_pictures
                )
                if (timeout := result.request.extras.timeout) is not None:
                    result.deadline = min(result.deadline, begin + timeout)
                check_extras(result.request.extras, self.artifact.ood_score is not None)
                for options in result.request.options:
                    self.artifact.check(options)
            return result

        def decode(result: RequestResult) -> None:
            if result.failure is None and result.request is not None:
                with record_failure(result):
                    result.images = decode_images(
                        result.request,
                        self.artifact.preprocessing,
                        self.settings,
                        result.deadline,
                        self.decoding_memory,
                    )
                result.take_failure()

        results = self.passes.map(read, range(len(rows)))
        self.admission.admit(results, deadline - time.monotonic())
        # Decoders change the warning filters, each in its thread; this restores them at the end.
        with catch_warnings():
            self.passes.map(decode, results)
        seconds = time.monotonic() - begin
        self.admission.measure_decode(sum(len(result.images) for result in results), seconds)
        self.phases.add("decode", begin, seconds)
        measures.emit(context, "clipcap_decode_seconds", seconds)
        return results

    def inference(
        self, results: Sequence[RequestResult], context: Context, deadline: float
    ) -> None:
        """Caption the images of all requests together, and explain those that are to be.

        Fills in captions, explanations and failures.
        """
        images = [
            image
            for result in results
            if not result.failure
            for image in result.images
            if not image.failure
        ]
        if not images:
            return
        begin = time.monotonic()
        timings = caption_images(
            self.artifact, images, self.settings.images_per_pass, deadline, self.passes
        )
        self.admission.measure(images, timings)
        for result in results:
            result.take_failure()
        self.phases.add("encode", begin, timings.encode)
        self.phases.add("generate", begin + timings.encode, timings.generate)
        measures.emit(context, "clipcap_encode_seconds", timings.encode)
        measures.emit(context, "clipcap_generate_seconds", timings.generate)
        measures.emit(context, "clipcap_batch_images", len(images))
        self._explain(results, context, deadline)

    def _explain(self, results: Sequence[RequestResult], context: Context, deadline: float) -> None:
        """Explain the captions of the requests that ask for it."""
        begin = time.monotonic()
        explanations = BatchExplanations(
            self.artifact,
            self.settings.images_per_pass,
            self.settings.explanation_seconds,
            deadline,
            self.passes,
        )
        explanations.explain(results)
        if explanations.images:
            seconds = time.monotonic() - begin
            self.admission.measure_explanations(explanations.images, seconds)
            self.phases.add("explain", begin, seconds)
            measures.emit(context, "clipcap_explain_seconds", seconds)

    def postprocess(self, results: Sequence[RequestResult], context: Context) -> list[str | bytes]:
        """Give each request its status, and return its reply."""
        replies = [self._reply(result, index, context) for index, result in enumerate(results)]
        measures.count(context, results)
        if self.capture is not None:
            for index, result in enumerate(results):
                own = context.get_request_id(index)
                headers = context.get_all_request_header(index)
                self.capture.offer(own, result, request_log.request_id(headers, own))
            measures.count_captured(context, self.capture.take_counts())
        return replies

    def _start_capture(self) -> Capture | None:
        """Begin to capture, if the settings ask for it."""
        if self.settings.capture is None:
            return None
        weights = self.artifact.info.get("weights_sha256") or ""
        described = {"model": self.name, "version": self.version, "weights_sha256": weights}
        return Capture(self.settings.capture, described)

    def _reply(self, result: RequestResult, index: int, context: Context) -> str | bytes:
        """The reply to one request; sets its status and headers."""
        reply: str | bytes = ""
        request, content_type = result.request, "application/json"
        if result.failure is None and request is not None:
            with record_failure(result):
                if request.form is Form.DESCRIPTION:
                    reply = to_json(self._description())
                elif request.explanation and request.explanation.format == "png":
                    reply, content_type = explanation_png(result.images[0]), "image/png"
                else:
                    explanation = explanation_fields(result.images[0])
                    reply = reply_body(request, result.images, self.name, self.version, explanation)
        if result.failure is not None:
            reply, content_type = failed_body(result.failure, result), "application/json"
        status = result.failure.status if result.failure else 200
        context.set_response_status(status, PHRASES[status], idx=index)
        context.set_response_content_type(index, content_type)
        if result.failure and result.failure.retry_after_seconds is not None:
            seconds = str(result.failure.retry_after_seconds)
            context.set_response_header(index, "Retry-After", seconds)
        if not is_rest(context.get_all_request_header(index)):
            # TorchServe's gRPC StreamPredictions reads this header without checking that it is
            # there, which would end the worker; over REST it would mean a chunked reply.
            context.set_response_header(index, "ts_stream_next", "false")
        return reply

    def _tell(self, results: Sequence[RequestResult], context: Context) -> None:
        """Write the requests of a batch to the log, and send their spans."""
        if not self.settings.request_log and self.tracing is None:
            return
        headers = [context.get_all_request_header(index) for index in range(len(results))]
        ids = [
            request_log.request_id(own, context.get_request_id(index))
            for index, own in enumerate(headers)
        ]
        if self.settings.request_log:
            request_log.write(results, headers, ids, self.phases)
        if self.tracing is not None:
            self.tracing.record(results, headers, ids, self.phases)

    def _warm_up(self) -> None:
        """Caption black images, so that the first request is not slower than the others.

        Then a full pass shows what an image takes, for the first estimates of `admission`.

        Raises:
            RuntimeError: The full pass failed.
        """
        side = self.artifact.preprocessing.size
        short = dataclasses.replace(self.artifact.defaults, max_tokens=3, min_tokens=0)

        def caption(pixels: torch.Tensor) -> None:
            self.artifact.caption(self.artifact.encode(pixels), short)

        self.passes.map(caption, [torch.zeros(1, 3, side, side)])
        count = self.settings.images_per_pass
        black = torch.zeros(3, side, side)
        images = [ImageResult(black, self.artifact.defaults) for _ in range(count)]
        timings = caption_images(self.artifact, images, count, math.inf, self.passes)
        if failure := next((image.failure for image in images if image.failure), None):
            raise RuntimeError(f"{count} images at once were not captioned: {failure.message}")
        self.admission.measure(images, timings)

    def _description(self) -> dict[str, Any]:
        """What `GET /models/clipcap?customized=true` adds to TorchServe's own description."""
        return {
            "model": {"name": self.name, "version": self.version},
            "formats": list(FORMATS),
            "max_pixels": self.settings.max_pixels,
            "max_pictures": self.settings.max_pictures,
            "options": {
                name: {
                    "default": default,
                    "from": OPTIONS[name].low,
                    "to": self.artifact.upper_limit(name),
                    "type": OPTIONS[name].kind.__name__,
                    "help": OPTIONS[name].help,
                }
                for name, default in self.artifact.defaults.to_dict().items()
            },
            "synonyms": SYNONYMS,
            "explanation": explanation_limits(),
            "extras": extras_limits(),
            "captioner": self.artifact.info,
        }


def _check_origin(folder: Path) -> None:
    """Refuse to run with another copy of our code than the archive's own."""
    origin = Path(os.fspath(model.__file__ or "")).resolve()
    if folder.resolve() not in origin.parents:
        raise Refusal(
            f"the package `model` comes from {origin.parent}, not from the archive in {folder}; "
            "start TorchServe without PYTHONPATH"
        )
