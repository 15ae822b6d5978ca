"""One replica of Ray Serve: takes requests, captions them in batches, says how it is.

It answers the paths of TorchServe's interfaces, so clients and the gateway need its address only:

    /predictions/NAME  /models/NAME/invoke  /explanations/NAME
    /v1/models/NAME:predict  /v2/models/NAME/infer      captions, as TorchServe's inference address
    /ping
    /models/NAME  /models/NAME?customized=true          state and description, as its management
    /metrics                                            as its metrics address

A batch runs in a thread of its own. The event loop goes on to read requests meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from handler import caption_settings, measures
from handler.batch_captioner import BatchCaptioner, ReceivedRequest, Reply
from handler.replies.failure import failure_of
from handler.requests.caption_request import RequestRefusal
from model.programs.load import load_artifact
from scale.serving.http_request import Kind, NotServed, error_body, read_request, route_of


class Replica:
    """A captioner behind HTTP.

    Args:
        settings: Those of `ServingSettings`.
        config: The parsed `model-config.yaml`.
        counts: The deployment that adds up metrics.
    """

    def __init__(
        self, settings: Mapping[str, Any], config: Mapping[str, Any], counts: DeploymentHandle
    ) -> None:
        # Lines of the handler, such as those of requests, go to the log of this process.
        logging.getLogger("handler").setLevel(logging.INFO)
        logging.getLogger("handler").addHandler(logging.StreamHandler(sys.stderr))
        self._settings, self._config, self._counts = settings, config, counts
        self._id = serve.get_replica_context().replica_id.unique_id
        self._emitted: list[tuple[str, float, str]] = []
        self._begun: float | None = None  # when the batch began that is captioned now
        self._in_hand = 0  # requests that wait, or are captioned
        self._limit = int(config["batchSize"]) + settings["queue_size"]
        self._captioner = BatchCaptioner()
        self._captioner.load(
            lambda: load_artifact(settings["artifact"]),
            caption_settings.read(config),
            settings["name"],
            settings["version"],
            self._record,
        )
        self._thread = ThreadPoolExecutor(1)  # one batch at a time
        self._answer.set_max_batch_size(int(config["batchSize"]))
        self._answer.set_batch_wait_timeout_s(config["maxBatchDelay"] / 1000)

    async def __call__(self, request: Request) -> Response:
        """Answer one request of HTTP."""
        try:
            route = route_of(request.method, request.url.path, self._settings["name"])
            match route.kind:
                case Kind.CAPTION:
                    received = await read_request(
                        request, route, self._settings["max_request_bytes"]
                    )
                    return _response(await self._in_a_batch(received))
                case Kind.STATE:
                    return await self._state(request.query_params.get("customized") == "true")
                case Kind.METRICS:
                    text: bytes = await self._counts.text.remote()
                    return Response(text, media_type="text/plain; version=0.0.4")
                case Kind.PING:
                    return _json({"status": "Healthy"})
        except NotServed as error:
            body = error_body(error.status, error.code, str(error))
            return Response(body, error.status, media_type="application/json")
        except RequestRefusal as error:
            failure = failure_of(error)
            return Response(failure.body(), failure.status, media_type="application/json")
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    async def _in_a_batch(self, received: ReceivedRequest) -> Reply:
        """Answer a request together with others, unless too many wait."""
        if self._in_hand >= self._limit:
            refusal = RequestRefusal(
                "overloaded",
                f"{self._in_hand} requests wait or are captioned, which is the limit; send the "
                "request again in 1 s",
                1,
            )
            failure = failure_of(refusal)
            self._record("clipcap_errors_total", 1, failure.code)
            headers = {"Retry-After": "1"}
            return Reply(failure.status, "application/json", failure.body(), headers)
        self._in_hand += 1
        try:
            reply: Reply = await self._answer(received)
            return reply
        finally:
            self._in_hand -= 1

    @serve.batch  # type: ignore[untyped-decorator]
    async def _answer(self, requests: list[ReceivedRequest]) -> Sequence[Reply]:
        self._begun = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._captioner.answer, requests)
        finally:
            self._begun = None
            self._pass_on()

    async def check_health(self) -> None:
        """Called by Serve, which starts another replica if it fails.

        Raises:
            RuntimeError: A batch takes longer than `responseTimeout`.
        """
        begun, limit = self._begun, self._config["responseTimeout"]
        if begun is not None and time.monotonic() - begun > limit:
            raise RuntimeError(f"a batch takes longer than {limit} s (responseTimeout)")
        if begun is None:
            measures.show_memory(self._record)
        self._pass_on()

    async def _state(self, customized: bool) -> Response:
        """The replicas and the queue, in the form of TorchServe's description of a model."""
        context = serve.get_replica_context()
        status = await asyncio.to_thread(serve.status)
        states = status.applications[context.app_name].deployments[context.deployment]
        workers = [
            {"id": f"{state}-{number}", "status": "READY" if state == "RUNNING" else str(state)}
            for state, count in states.replica_states.items()
            for number in range(count)
        ]
        settings, batch = self._settings, self._config["batchSize"]
        waiting = max(0, self._in_hand - batch)
        found: dict[str, Any] = {
            "modelName": settings["name"],
            "modelVersion": settings["version"],
            "minWorkers": settings["min_replicas"],
            "maxWorkers": settings["max_replicas"],
            "batchSize": batch,
            "maxBatchDelay": self._config["maxBatchDelay"],
            "workers": workers,
            "jobQueueStatus": {
                "remainingCapacity": settings["queue_size"] - waiting,
                "pendingRequests": waiting,
            },
        }
        if customized:
            described = await self._in_a_batch(ReceivedRequest({}, {"describe": "true"}))
            if described.status != 200:
                return _response(described)
            found["customizedMetadata"] = json.loads(described.body)
        return _json([found])

    def _record(self, name: str, value: float, label: str = "") -> None:
        self._emitted.append((name, value, self._id if name in measures.GAUGES else label))

    def _pass_on(self) -> None:
        """Send what was counted; nothing waits for it."""
        emitted, self._emitted = self._emitted, []
        if emitted:
            self._counts.add.remote(emitted)


def _response(reply: Reply) -> Response:
    headers = {**reply.headers, "Content-Type": reply.content_type}
    return Response(reply.body, reply.status, headers)


def _json(content: Any) -> Response:
    return Response(json.dumps(content), media_type="application/json")
