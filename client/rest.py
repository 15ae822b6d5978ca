"""Sends a picture to TorchServe, or to the gateway in front of it, over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx

from client.access import Access
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.results import CaptionResult, read_reply


class RestTransport:
    """A pool of HTTP connections to one server; safe to use from several threads.

    Args:
        url: Where the server listens, such as `http://127.0.0.1:8080`.
        model: Name of the model there.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.
    """

    def __init__(self, url: str, model: str, timeout: float, access: Access) -> None:
        """Open nothing yet: connections are made by the first request."""
        self.address = url.rstrip("/")
        self._path = f"{self.address}/predictions/{model}"
        self._timeout = timeout
        # No proxy of the environment: the address is the server's own.
        self._http = httpx.Client(
            timeout=timeout,
            trust_env=False,
            verify=tls_context(access),
            headers=dict(access.headers),
        )

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        try:
            # A form: TorchServe drops the parameters of a query on this route.
            reply = self._http.post(
                self._path,
                files={"data": ("picture", picture, "application/octet-stream")},
                data=dict(options),
            )
        except httpx.TimeoutException:
            raise ServerTimeout(self.address, self._timeout) from None
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise CaptionError(
                0,
                "connection_lost",
                f"{self.address} closed the connection while {len(picture)} bytes were sent "
                f"({type(error).__name__}); the picture may be over the server's size limit, or "
                "the server was stopped",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.address, str(error)) from None
        return read_reply(reply.status_code, reply.content, reply.headers.get("Retry-After"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def tls_context(access: Access) -> ssl.SSLContext:
    """What httpx trusts. It reads SSL_CERT_FILE and SSL_CERT_DIR, unlike `trust_env=False`."""
    if access.ca_file is None:
        return httpx.create_ssl_context()
    return ssl.create_default_context(cafile=access.ca_file)
