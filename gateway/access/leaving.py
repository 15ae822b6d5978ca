"""Gives up what is done for a request when its client leaves, so that it costs no more.

A web server tells that a connection has ended only to an application that asks for the next
message. Applications that wait for something else, such as a caption, do not ask.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def serve_unless_left(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
    """Let an application answer one request; cancel it when the client leaves before the end.

    Returns:
        Whether the client stayed.
    """
    serving = asyncio.current_task()
    assert serving is not None
    watching: asyncio.Task[None] | None = None
    answered = left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        if not answered:  # a server reports the end of its own answer in the same way
            left = True
            serving.cancel()

    async def receive_and_watch() -> Message:
        nonlocal watching
        message = await receive()
        if watching is None and not message.get("more_body", False):
            watching = asyncio.create_task(watch())
        return message

    async def send_and_note(message: Message) -> None:
        nonlocal answered
        answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    try:
        await app(scope, receive_and_watch, send_and_note)
    except asyncio.CancelledError:
        if not left:
            raise
        serving.uncancel()
        return False
    finally:
        if watching is not None:
            watching.cancel()
    return True
