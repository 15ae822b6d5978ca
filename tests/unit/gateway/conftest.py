"""The authority of certificates for tests of the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trustme.CA]:
    """What signs certificates; the only one that is trusted."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield ca
