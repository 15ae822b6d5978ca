"""TLS by certificate files."""

from __future__ import annotations

import ssl

from gateway.settings import PREFIX, Settings, SettingsError


def read_certificate(settings: Settings) -> ssl.SSLContext | None:
    """What connections are encrypted with: TLS 1.2 or later, HTTP/1.1.

    Args:
        settings: They name the files.

    Returns:
        None if no certificate is set.

    Raises:
        SettingsError: A file cannot be read, holds something else, or the key is another one's.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    for name, file in (("TLS_CERTIFICATE", certificate), ("TLS_KEY", key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise SettingsError(f"{PREFIX}{name}: {file} cannot be read: {error}") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without an answer for the passphrase, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise SettingsError(
            f"{PREFIX}TLS_CERTIFICATE, {PREFIX}TLS_KEY: {certificate} and {key} are not a "
            f"certificate in PEM and its key without a passphrase: {error.reason or error}"
        ) from None
    return context
