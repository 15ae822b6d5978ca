"""What a gateway in front of the server asks for: headers, a token, certificates for TLS."""

from __future__ import annotations

import dataclasses
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Printable ASCII, without spaces at the ends: a line break would begin another header.
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_TOKEN = re.compile(r"[!-~]+")


@dataclasses.dataclass(frozen=True)
class Access:
    """Headers and certificates, the same for REST and gRPC.

    Attributes:
        headers: Sent with every request; over gRPC as its metadata. Names are in lower case.
        ca_file: Certificates (PEM) of the authorities to trust. None for those of SSL_CERT_FILE or
            SSL_CERT_DIR, or else the usual ones.
    """

    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ca_file: Path | None = None

    @classmethod
    def of(
        cls,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ca_file: Path | None = None,
    ) -> Access:
        """Check what a user gave.

        Args:
            headers: Name -> value.
            token: Sent as `Authorization: Bearer <token>`.
            ca_file: See the attribute.

        Raises:
            ValueError: A header or the token cannot be sent, there are two for `Authorization`, or
                the file holds no certificate. No value is shown: it may be a secret.
            OSError: The file cannot be read.
        """
        found: dict[str, str] = {}
        for name, value in (headers or {}).items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"header name {name[:40]!r} cannot be sent; it must be letters, digits and -"
                )
            if not _VALUE.fullmatch(value):
                raise ValueError(
                    f"the value of header {name} cannot be sent; it must be printable ASCII text "
                    "without spaces at its ends"
                )
            found[name.lower()] = value
        if token is not None:
            if not _TOKEN.fullmatch(token):
                raise ValueError(
                    "the token cannot be sent; it must be printable ASCII text without spaces"
                )
            if "authorization" in found:
                raise ValueError("both a token and a header Authorization are given; give one")
            found["authorization"] = f"Bearer {token}"
        if ca_file is not None:
            ca_file.read_bytes()  # unlike ssl, names the file in its error
            try:
                ssl.create_default_context(cafile=ca_file)
            except ssl.SSLError as error:
                raise ValueError(
                    f"{ca_file} holds no certificate (PEM) of an authority: {error.reason or error}"
                ) from None
        return cls(found, ca_file)

    def root_certificates(self) -> bytes | None:
        """The certificates to trust over gRPC, as PEM; None for those that gRPC comes with.

        Raises:
            OSError: The file cannot be read.
        """
        file = self.ca_file or ssl.get_default_verify_paths().cafile
        return Path(file).read_bytes() if file else None
