"""Answers batches of requests, whatever server took them: read, decode, caption, explain, reply.

`caption_handler.py` calls it for TorchServe, `scale/serving/replica.py` for Ray Serve. Each request
gets a status and a reply of its own: what one request makes fail, in any of the steps, fails that
request alone.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from warnings import catch_warnings

import torch

from handler import measures
from handler.admission import Admission
from handler.caption_batch import caption_images
from handler.caption_settings import Settings
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
from handler.request_images import decode_images
from handler.request_result import ImageResult, RequestResult, record_failure
from handler.requests.caption_request import Form, deadline_passed
from handler.requests.fields import (
    deadline_of,
    form_of_headers,
    parse_request,
    read_body,
)
from handler.telemetry import request_log, tracing
from handler.telemetry.phases import Phases
from model.artifact import Artifact
from model.image.refusals import FORMATS
from model.options import OPTIONS, SYNONYMS

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ReceivedRequest:
    """One request as a server took it.

    Attributes:
        fields: Name -> bytes, text or parsed JSON: `body`, or the fields of a form or of gRPC, and
            the parameters of a query.
        headers: HTTP headers, and for each field its content type; `explain: True` and
            `describe: True` come from the route.
        id: The server's own name for it; None if it gives none.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    id: str | None = None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What one request is answered.

    Attributes:
        status: Of HTTP, a key of `handler.replies.failure.PHRASES`.
        content_type: Of the body.
        body: JSON text, or the PNG file of an explanation.
        headers: Others than the content type.
    """

    status: int
    content_type: str
    body: str | bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class BatchCaptioner:
    """A captioner that is loaded, and answers one batch of requests at a time."""

    def load(
        self,
        load: Callable[[], Artifact],
        settings: Settings,
        name: str,
        version: str,
        emit: measures.Emit,
    ) -> None:
        """Load the captioner and run it once.

        Args:
            load: Loads the artifact.
            settings: Limits.
            name: Of the model, for replies.
            version: The same.
            emit: Takes what is counted.

        Raises:
            Exception: The artifact cannot be loaded, or does not caption.
        """
        self.settings = settings
        # Before loading, which packs as many layers at a time. torch's own number is that of the
        # machine's cores, whatever a container may use of them.
        torch.set_num_threads(settings.threads)
        self.passes = ParallelPasses(settings.threads)
        self.decoding_memory = DecodingMemory(settings.max_pixels)
        self.admission = Admission(settings.images_per_pass, settings.explanation_seconds)
        self.artifact = load()
        self._warm_up()
        self.name, self.version, self.emit = name, version, emit
        self.capture = self._start_capture()
        self.tracing = tracing.from_environment()
        measures.start(emit)
        logger.info("captioner %s %s is ready, %s", name, version, settings)

    def answer(self, requests: Sequence[ReceivedRequest]) -> list[Reply]:
        """Answer one batch.

        Args:
            requests: In any number; those of a batch share the passes through the model.

        Returns:
            For each request its reply.
        """
        self.phases = Phases()
        deadline = time.monotonic() + self.settings.deadline_seconds
        results = self.preprocess(requests, deadline)
        self.inference(results, deadline)
        replies = self.postprocess(results, requests)
        self._tell(results, requests)
        return replies

    def preprocess(
        self, requests: Sequence[ReceivedRequest], deadline: float
    ) -> list[RequestResult]:
        """Read the requests, admit those that there is time for, and decode their pictures.

        Several requests are read, and then decoded, in parallel.

        Returns:
            For each request what was read and its images, or its failure.
        """
        begin = time.monotonic()

        def read(received: ReceivedRequest) -> RequestResult:
            result = RequestResult()
            with record_failure(result):
                headers = received.headers
                result.form = form_of_headers(headers)
                result.deadline = min(deadline, deadline_of(headers))
                if time.monotonic() >= result.deadline:
                    raise deadline_passed()
                body = read_body(received.fields, headers)
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

        results = self.passes.map(read, requests)
        self.admission.admit(results, deadline - time.monotonic())
        # Decoders change the warning filters, each in its thread; this restores them at the end.
        with catch_warnings():
            self.passes.map(decode, results)
        seconds = time.monotonic() - begin
        self.admission.measure_decode(sum(len(result.images) for result in results), seconds)
        self.phases.add("decode", begin, seconds)
        self.emit("clipcap_decode_seconds", seconds)
        return results

    def inference(self, results: Sequence[RequestResult], deadline: float) -> None:
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
        self.emit("clipcap_encode_seconds", timings.encode)
        self.emit("clipcap_generate_seconds", timings.generate)
        self.emit("clipcap_batch_images", len(images))
        self._explain(results, deadline)

    def _explain(self, results: Sequence[RequestResult], deadline: float) -> None:
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
            self.emit("clipcap_explain_seconds", seconds)

    def postprocess(
        self, results: Sequence[RequestResult], requests: Sequence[ReceivedRequest]
    ) -> list[Reply]:
        """Make the reply to each request, and count them."""
        replies = [self._reply(result) for result in results]
        measures.count(self.emit, results)
        if self.capture is not None:
            for request, result in zip(requests, results, strict=True):
                name = request_log.request_id(request.headers, request.id)
                self.capture.offer(request.id, result, name)
            measures.count_captured(self.emit, self.capture.take_counts())
        return replies

    def _start_capture(self) -> Capture | None:
        """Begin to capture, if the settings ask for it."""
        if self.settings.capture is None:
            return None
        weights = self.artifact.info.get("weights_sha256") or ""
        described = {"model": self.name, "version": self.version, "weights_sha256": weights}
        return Capture(self.settings.capture, described)

    def _reply(self, result: RequestResult) -> Reply:
        """The reply to one request."""
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
        headers = {}
        if result.failure and result.failure.retry_after_seconds is not None:
            headers["Retry-After"] = str(result.failure.retry_after_seconds)
        status = result.failure.status if result.failure else 200
        return Reply(status, content_type, reply, headers)

    def _tell(self, results: Sequence[RequestResult], requests: Sequence[ReceivedRequest]) -> None:
        """Write the requests of a batch to the log, and send their spans."""
        if not self.settings.request_log and self.tracing is None:
            return
        headers = [each.headers for each in requests]
        ids = [request_log.request_id(each.headers, each.id) for each in requests]
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
        """What `GET /models/clipcap?customized=true` says of the captioner."""
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
