"""SIGHUP: the gateway goes on with another TorchServe or certificate, without losing a request.

The files of the certificate are read again, under the names that the gateway was started with. New
connections get the new one. Files that cannot be used leave the old one, with a line in the log.

The contract for TorchServe, for programs that replace the TorchServe behind a running gateway:

1. The addresses stand in a file: that of `--settings`, or that of `GATEWAY_SETTINGS`. A variable
   wins over the file, so `GATEWAY_INFERENCE`, `GATEWAY_MANAGEMENT` and `GATEWAY_METRICS` must not
   be set.
2. Start the other TorchServe. Write its addresses into the file, as a whole file that replaces the
   old one, so that half of one is never read. Send SIGHUP to the gateway's process.
3. The gateway reads its files again and takes over `inference`, `management` and `metrics`, all
   three at once. It takes over nothing else; other settings that differ are named in the log and
   count from the next start. A request to TorchServe goes where the addresses point when it begins,
   and those in flight end at the TorchServe where they began. What the gateway has kept of the
   captioner (its description, and that it captioned lately) is forgotten.
4. The log says so in lines that end exactly like this (the first one at the start too):

       captions come from http://127.0.0.1:8085
       backend http://127.0.0.1:8080: its last request has ended

   The second comes when nothing is in flight at the TorchServe that was left, which may then be
   stopped; at once if nothing was. If a file cannot be used, everything stays as it is:

       reload refused, everything stays as it is: FILE: inference is 'x'; it must be an address ...

5. `/metrics`, which needs a key where the other routes do, shows the same. It has one line
   `gateway_backend_info{inference="http://127.0.0.1:8085"} 1.0`, and the requests in flight as
   `gateway_backend_in_flight{inference="..."}`: for the present TorchServe, and for each that was
   left and still has any. `/healthz` shows no address, because everybody may ask it.

6. The settings `candidate_inference`, `candidate_management`, `candidate_metrics`,
   `candidate_share`, `candidate_shadow` and `candidate_failures` say which second captioner is
   tried out and what it gets. They are taken over together with the addresses. After the line of
   the third step the log has one of these, if a captioner is or was tried out:

       candidate: http://127.0.0.1:8085 gets 10% of the requests
       candidate: http://127.0.0.1:8085 gets a copy of 10% of the requests
       candidate: none

   and, when the candidate has failed too often:

       candidate http://127.0.0.1:8085: stopped after 5 failures in its last 40 pictures; all ...

   The candidate becomes the current TorchServe when `inference` names it and `candidate_inference`
   is gone. Either way no request is lost: the line of its last request comes as for any other.

Without a file of settings or of a certificate SIGHUP ends the process, as it ends any other.
"""

from __future__ import annotations

import dataclasses
import logging
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.captioning.backends import Backends
from gateway.listening.tls import read_certificate
from gateway.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

#: What a running gateway takes over.
TAKEN_OVER = (
    *("inference", "management", "metrics"),
    *("candidate_inference", "candidate_management", "candidate_metrics"),
    *("candidate_share", "candidate_shadow", "candidate_failures"),
)


class Reload:
    """Reads the settings again when it is called.

    Args:
        environment: The variables that the gateway was started with.
        file: The file of `--settings`, or None.
        settings: What the gateway was started with.
        backends: What is moved.
        renew: Takes the certificate when it was read again; not called if there is none.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        file: Path | None,
        settings: Settings,
        backends: Backends,
        renew: Callable[[ssl.SSLContext], None],
    ) -> None:
        self._environment = environment
        self._file = file
        self._settings = settings
        self._backends = backends
        self._renew = renew

    def __call__(self) -> None:
        """Take over what may change, or leave it as it is and say why in the log."""
        try:
            if tls := read_certificate(self._settings):
                self._renew(tls)
                logger.info("reload: new connections get the certificate as it is now")
        except SettingsError as error:
            logger.error("certificate refused, the one before stays: %s", error)
        try:
            found = Settings.from_environment(self._environment, self._file)
        except SettingsError as error:
            logger.error("reload refused, everything stays as it is: %s", error)
            return
        later = [
            field.name
            for field in dataclasses.fields(Settings)
            if field.name not in TAKEN_OVER
            and getattr(found, field.name) != getattr(self._settings, field.name)
        ]
        if later:
            logger.warning("reload: read at the next start only: %s", ", ".join(later))
        self._backends.move_to(found)
