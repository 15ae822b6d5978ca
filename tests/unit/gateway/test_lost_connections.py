"""A TorchServe that ends closes its connections one after the other, those that are kept too."""

from __future__ import annotations

import asyncio
import contextlib
import json

from client import CaptionResult
from gateway.access.bodies import Bodies
from gateway.access.callers import CALLER, Caller
from gateway.captioning.captioner import Captioner
from gateway.captioning.torchserve import TorchServeClient
from gateway.measures import Measures
from gateway.settings import Settings

CAPTION = {
    "caption": "a boat",
    "captions": [{"caption": "a boat", "confidence": 0.5, "log_prob": -1.0, "tokens": 3}],
    "model": {"name": "clipcap", "version": "1.0"},
}
#: Seconds between the ends of two connections.
APART = 0.05


class Ending:
    """Answers requests until it is told to end; a connection that is new then is answered again."""

    def __init__(self) -> None:
        self.old: list[asyncio.StreamWriter] = []
        self.is_ending = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_ending:
            self.old.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].split("\r\n")[0]
                await reader.readexactly(int(length))
                if self.is_ending and writer in self.old:
                    await self._close_all(writer)
                    return
                await asyncio.sleep(APART)  # so that two requests need two connections
                body = json.dumps(CAPTION)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(f"{head}{body}".encode())
        writer.close()

    async def _close_all(self, first: asyncio.StreamWriter) -> None:
        for each in [first, *(each for each in self.old if each is not first)]:
            each.transport.abort()
            await asyncio.sleep(APART)


async def caption_while_it_ends() -> list[object]:
    ending = Ending()
    async with await asyncio.start_server(ending.serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = Settings(inference=address, management=address, metrics=address)
        torchserve = TorchServeClient(settings)
        torchserve.backends.current.description = {"max_pictures": 4}
        measures = Measures()
        bodies = Bodies(settings, measures)
        captioner = Captioner(torchserve, settings, measures, None, bodies)
        CALLER.set(Caller("someone", asyncio.get_running_loop().time() + 60))
        found: list[object] = await captioner.caption([b"one", b"two", b"three"], {})
        ending.is_ending = True
        torchserve.backends.current.description = {"max_pictures": 4}
        found += await captioner.caption([b"four"], {})
        await torchserve.close()
    return found


def test_a_picture_is_sent_again_when_all_connections_have_ended():
    outcomes = asyncio.run(caption_while_it_ends())
    assert [type(each) for each in outcomes] == [CaptionResult] * 4, outcomes
