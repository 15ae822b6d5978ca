"""Python clients of the captioner: REST and gRPC behind one interface.

    from client import CaptionClient

    with CaptionClient("http://127.0.0.1:8080") as client:   # or "grpc://127.0.0.1:7070"
        print(client.caption("photo.jpg", num_beams=5).caption)
        for file, outcome in client.caption_many(Path("holiday").glob("*.jpg")):
            print(file, outcome)                             # a CaptionResult or a CaptionError

    with CaptionClient("http://127.0.0.1:8000") as client:   # a gateway
        client.feedback(client.caption("photo.jpg"), correction="two boats at sunset")

`AsyncCaptionClient` is the same for programs of asyncio. Errors are `CaptionError`s, with the
status, code and message that the server gave.
"""

from client.async_client import AsyncCaptionClient
from client.caption_client import CaptionClient
from client.errors import CaptionError, ServerTimeout, ServerUnreachable, UnreadableFile
from client.feedback import Feedback
from client.options import Option
from client.results import Caption, CaptionResult, Ood

__all__ = [
    "AsyncCaptionClient",
    "Caption",
    "CaptionClient",
    "CaptionError",
    "CaptionResult",
    "Feedback",
    "Ood",
    "Option",
    "ServerTimeout",
    "ServerUnreachable",
    "UnreadableFile",
]
