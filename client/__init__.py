"""Python clients of the captioner: REST and gRPC behind one interface.

    from client import CaptionClient

    with CaptionClient("http://127.0.0.1:8080") as client:   # or "grpc://127.0.0.1:7070"
        print(client.caption("photo.jpg", num_beams=5).caption)

Errors are `CaptionError`s, with the status, code and message that the server gave.
"""

from client.caption_client import CaptionClient
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.results import Caption, CaptionResult

__all__ = [
    "Caption",
    "CaptionClient",
    "CaptionError",
    "CaptionResult",
    "ServerTimeout",
    "ServerUnreachable",
]
