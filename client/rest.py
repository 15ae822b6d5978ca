"""Sends a picture to TorchServe over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.results import CaptionResult, read_reply


class RestTransport:
    """A pool of HTTP connections to one server; safe to use from several threads.

    Args:
        url: Where the server listens, such as `http://127.0.0.1:8080`.
        model: Name of the model there.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        """Open nothing yet: connections are made by the first request."""
        self.address = url.rstrip("/")
        self._path = f"{self.address}/predictions/{model}"
        self._timeout = timeout
        # No proxy of the environment: the address is the server's own. Without the environment
        # httpx would not read SSL_CERT_FILE and SSL_CERT_DIR either; the context does.
        self._http = httpx.Client(
            timeout=timeout, trust_env=False, verify=httpx.create_ssl_context()
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
        return read_reply(reply.status_code, reply.content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
