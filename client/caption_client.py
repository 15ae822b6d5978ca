"""One client for REST and gRPC; the scheme of the address chooses between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar

from client.base import JOBS, BaseClient, Picture, read_picture
from client.errors import CaptionError, UnreadableFile
from client.feedback import Feedback, feedback_fields
from client.in_order import in_order
from client.options import Option
from client.results import CaptionResult

P = TypeVar("P", bound=Picture)
R = TypeVar("R")


class Transport(Protocol):
    """A way to send one picture and get its captions."""

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture; raises `CaptionError`."""

    def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Say something of a caption; raises `CaptionError`."""

    def close(self) -> None:
        """Close connections."""


class CaptionClient(BaseClient[Transport]):
    """Captions pictures with a running captioner; safe to use from several threads.

    Its arguments are those of `BaseClient`.
    """

    def _over_http(self) -> Transport:
        from client.rest import RestTransport

        return RestTransport(self.address, self.model, self.timeout, self._access)

    def _over_grpc(self, target: str) -> Transport:
        from client.rpc import GrpcTransport

        tls = self.address.startswith("grpcs:")
        return GrpcTransport(target, self.model, self.timeout, self._access, tls=tls)

    def caption(self, picture: Picture, /, **options: float | str) -> CaptionResult:
        """Caption one picture.

        Args:
            picture: The bytes of a picture file, or its path.
            options: Options of the server, such as `num_beams=5`; see `options`.

        Raises:
            CaptionError: The server refused the picture or an option, or could not answer.
            OSError: The file cannot be read.
            ValueError: An option is called `data`, or holds half a character.
        """
        texts = self._texts(options)
        return self._send(read_picture(picture), texts)

    def caption_many(
        self, pictures: Iterable[P], /, *, jobs: int = JOBS, **options: float | str
    ) -> Iterator[tuple[P, CaptionResult | CaptionError]]:
        """Caption many pictures, several at a time, in their order.

        `pictures` is read as it goes: 4 x `jobs` of them are taken at most before their results
        are, so a million need no more memory than a hundred. A picture that fails does not end it.

        Args:
            pictures: Paths, or the bytes of picture files.
            jobs: Pictures sent at a time.
            options: Options of the server, for all of them. They are checked against the server's
                description first, if it has one.

        Yields:
            Each picture as it was given, with its result, or with the error that it got: code
            `unreadable_file` for a file that cannot be read.

        Raises:
            CaptionError: The server would refuse an option.
            ValueError: An option is called `data`, or holds half a character.
        """
        if options:
            self._try_to_describe()
        return in_order(partial(self._outcome, self._texts(options)), pictures, jobs)

    def feedback(
        self,
        of: CaptionResult | str,
        /,
        *,
        thumbs: str | None = None,
        correction: str | None = None,
        picture: Picture | None = None,
        caption_index: int = 0,
        picture_index: int = 0,
    ) -> Feedback:
        """Say something of a caption that a gateway gave: thumbs, a better caption, or both.

        What is said later of the same caption takes the place of the earlier.

        Args:
            of: The result with the caption, or the id of its request.
            thumbs: `up` or `down`.
            correction: A better caption.
            picture: The picture that was captioned, to be kept there and trained on. Without it
                no picture is stored.
            caption_index: Of the caption among those of the picture, from 0.
            picture_index: Of the picture in the request, from 0.

        Raises:
            CaptionError: The gateway did not take it, or could not answer.
            OSError: The file of the picture cannot be read.
            ValueError: The result did not come from a gateway.
        """
        fields = feedback_fields(of, picture_index, caption_index, thumbs, correction)
        file = None if picture is None else read_picture(picture)
        return self._until_answered(lambda: self._transport.give_feedback(fields, file))

    def options(self) -> dict[str, Option]:
        """The options of the server, with their types, limits and defaults.

        They are read once. From then on a wrong option is refused before anything is sent, with
        the error that the server would give.

        Raises:
            CaptionError: The server has no description, or does not answer.
        """
        return self._options()

    def description(self) -> dict[str, Any]:
        """What the server says of its model: `options`, `formats`, `max_pixels` and more.

        It is read once.

        Raises:
            CaptionError: The server has no description, or does not answer.
        """
        return self._describe()

    def give_up(self) -> None:
        """Let requests that wait to be sent again fail at once, now and later."""
        self._retries.given_up.set()

    def close(self) -> None:
        """Close connections; requests that wait to be sent again fail."""
        self.give_up()
        self._transport.close()

    def _send(self, data: bytes, texts: Mapping[str, str]) -> CaptionResult:
        return self._until_answered(lambda: self._transport.send(data, texts))

    def _until_answered(self, send: Callable[[], R]) -> R:
        """Send a request, and again as `Retries` says."""
        attempts = self._retries.begin()
        while True:
            try:
                result = send()
            except CaptionError as error:
                if self._retries.given_up.wait(attempts.pause(error)):
                    raise
            else:
                self._retries.answered = True
                return result

    def _outcome(self, texts: Mapping[str, str], picture: Picture) -> CaptionResult | CaptionError:
        try:
            return self._send(read_picture(picture), texts)
        except CaptionError as error:
            return error
        except OSError as error:
            return UnreadableFile(error)

    def __enter__(self) -> CaptionClient:
        """Use as a context manager: closes at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections."""
        self.close()
