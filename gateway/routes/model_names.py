"""The name and version of the model that a request of another program's interface asks for."""

from __future__ import annotations

from gateway.errors import GatewayError


def check_model(asked: str, served: str) -> None:
    """Refuse a request for a model that is not served.

    Args:
        asked: The name in the request; Ollama's clients may add `:latest`.
        served: The name of the model in TorchServe.

    Raises:
        GatewayError: It is another model.
    """
    if asked.removesuffix(":latest") != served:
        raise GatewayError(
            404, "model_not_found", f"model {asked[:80]!r} is not served; ask for {served!r}"
        )


def check_version(asked: str, served: str) -> None:
    """Refuse a request for a version that is not served.

    Args:
        asked: The version in the request.
        served: The version of the archive in TorchServe.

    Raises:
        GatewayError: It is another version.
    """
    if asked != served:
        raise GatewayError(
            404, "version_not_found", f"version {asked[:80]!r} is not served; ask for {served!r}"
        )
