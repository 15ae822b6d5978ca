"""A captioner as it is evaluated: as a server runs it, or on another device than the CPU."""

from __future__ import annotations

import copy

import torch

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact, spelling
from model.network.conversion import PixelEncoder, build_decoder
from model.network.search import Search
from model.network.served import ServedCaptioner


class DeviceArtifact(Artifact):
    """A captioner that was not exported, on another device than the CPU.

    Its layers are not packed as a server's are, since those are for processors. It computes the
    same but for rounding.

    Args:
        checkpoint: The captioner; its modules are copied.
        device: Where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        captioner, config = checkpoint.captioner, checkpoint.captioner.config
        as_served = eager_artifact(checkpoint)
        encoder = PixelEncoder(copy.deepcopy(captioner.clip), config.mapper.feature_kind)
        quality = copy.deepcopy(checkpoint.quality.head) if checkpoint.quality else None
        search = Search(
            build_decoder(captioner.gpt2), config.end_token_id, spelling(checkpoint), None, quality
        )
        mapper = copy.deepcopy(captioner.mapper)
        module = ServedCaptioner(encoder, mapper, search, config.normalize_feature)
        module = module.eval().to(device)
        super().__init__(module, as_served.info, as_served.tokenizer, device, as_served.ood_score)


def artifact_on(checkpoint: Checkpoint, device: torch.device) -> Artifact:
    """The captioner on a device; on the CPU exactly as it is served."""
    return (
        eager_artifact(checkpoint) if device.type == "cpu" else DeviceArtifact(checkpoint, device)
    )
