"""Asks a server to describe its model: the options it takes, its limits and formats."""

from __future__ import annotations

from typing import Any

import httpx

from client.access import Access
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.rest import CONNECT_SECONDS, tls_context
from client.results import bad_reply, reported_error


def read_description(
    address: str, management: str | None, model: str, timeout: float, access: Access | None = None
) -> dict[str, Any]:
    """The description of a model, from TorchServe's management, or else from the gateway.

    Args:
        address: Where pictures are sent.
        management: Address of the management API; None where a gateway is at `address`.
        model: Name of the model on the server.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.

    Returns:
        As `describe`.

    Raises:
        CaptionError: There is no description, or the server does not answer.
    """
    if management is not None:
        return describe(management, model, timeout, access)
    if address.startswith(("http://", "https://")):
        return describe_behind_gateway(address, model, timeout, access)
    raise CaptionError(
        0,
        "no_description",
        f"{address} does not describe its options; give the address of TorchServe's management, "
        "as in --management http://127.0.0.1:8081",
    )


def describe(
    management: str, model: str, timeout: float, access: Access | None = None
) -> dict[str, Any]:
    """The captioner's own part of TorchServe's description of a model.

    Args:
        management: Address of the management API, such as `http://127.0.0.1:8081`.
        model: Name of the model on the server.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.

    Returns:
        `options`: name -> `type`, `from`, `to`, `default` and `help`; beside it `formats`,
        `max_pixels`, `max_pictures` and more.

    Raises:
        CaptionError: The server has no such model, is no captioner, or does not answer.
    """
    reply = _get(management, f"/models/{model}", {"customized": "true"}, timeout, access)
    found = _json(reply)
    if isinstance(found, dict) and (error := reported_error(reply.status_code, found)):
        raise error
    of_list = isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict)
    return _checked(found[0].get("customizedMetadata") if of_list else None, reply)


def describe_behind_gateway(
    address: str, model: str, timeout: float, access: Access | None = None
) -> dict[str, Any]:
    """The same from a gateway, which serves one model.

    Args:
        address: Of the gateway, such as `http://127.0.0.1:8000`.
        model: Name of the model on the server.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.

    Raises:
        CaptionError: The server is no gateway, has no such model, or does not answer.
    """
    reply = _get(address, "/v1/description", {}, timeout, access)
    found = _json(reply)
    if not isinstance(found, dict):
        raise bad_reply(reply.status_code, reply.content)
    error = reported_error(reply.status_code, found)
    if error is not None and error.status in (404, 405):  # TorchServe's inference API
        raise CaptionError(
            error.status,
            "no_gateway",
            f"{address} is no gateway; for the options of TorchServe give the address of its "
            "management, as in --management http://127.0.0.1:8081",
        )
    if error is not None:
        raise error
    description = _checked(found, reply)
    served = description.get("model")
    if not isinstance(served, dict):
        raise bad_reply(reply.status_code, reply.content)
    if served.get("name") != model:
        message = f"model {model!r} is not served; ask for {served.get('name')!r}"
        raise CaptionError(404, "model_not_found", message)
    return description


def _get(
    address: str, path: str, query: dict[str, str], timeout: float, access: Access | None
) -> httpx.Response:
    address = address.rstrip("/")
    access = access or Access()
    try:
        # As in `client.rest`: no proxy of the environment.
        return httpx.get(
            f"{address}{path}",
            params=query,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            trust_env=False,
            verify=tls_context(access),
            headers=dict(access.headers),
        )
    except httpx.ConnectTimeout:
        reason = f"no connection within {CONNECT_SECONDS:g} s"
        raise ServerUnreachable(address, reason, unsent=True) from None
    except httpx.TimeoutException:
        raise ServerTimeout(address, timeout) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(address, str(error)) from None


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise bad_reply(reply.status_code, reply.content) from None


def _checked(description: Any, reply: httpx.Response) -> dict[str, Any]:
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise bad_reply(reply.status_code, reply.content)
    return description
