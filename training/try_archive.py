"""Captions one image from an unpacked archive, as a TorchServe worker would.

    python -P training/try_archive.py FOLDER        (with PYTHONPATH=FOLDER)

`training/archive.py` runs it on the archive that it packed. This file imports nothing of this
repository, so that the archive must be complete: TorchServe's own loader loads the handler from the
folder.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import TsModelLoader


def load(folder: Path) -> Any:
    """The archive's service, as `ts.model_service_worker` makes it."""
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    metrics = MetricsCacheYamlImpl(str(folder / "handler" / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = manifest["modelName"]
    service = TsModelLoader().load(
        manifest["modelName"], str(folder), manifest["handler"], batch_size=1, metrics_cache=metrics
    )
    service.set_cl_socket(None)
    return service


def main(folder: Path) -> str:
    """The caption in the reply to one image; exits where the reply is an error."""
    service = load(folder)
    picture = io.BytesIO()
    Image.new("RGB", (320, 240), "grey").save(picture, "JPEG")
    field = {"name": "body", "contentType": "image/jpeg", "value": bytearray(picture.getvalue())}
    message = service.predict([{"requestId": b"try", "parameters": [field], "headers": []}])
    reply = bytes(message)
    begin, end = reply.find(b'{"'), reply.rfind(b"}") + 1
    answer = json.loads(reply[begin:end]) if 0 <= begin < end else {}
    if "caption" not in answer:
        text = answer.get("error", {}).get("message") or reply.decode(errors="replace")
        sys.exit(f"it answered: {' '.join(text.split())[-300:]}")
    return answer["caption"]


if __name__ == "__main__":
    caption = main(Path(sys.argv[1]))
    heavy = sorted({"transformers", "pytorch_lightning", "hydra"} & set(sys.modules))
    if heavy:
        sys.exit(f"a worker would import {', '.join(heavy)}")
    print(caption)
