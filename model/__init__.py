"""The captioner itself: image -> pixels -> feature -> prefix -> caption.

Reading order: `config`, `mapper`, `captioner` (training's view), `vision_transformer`, `decoder`,
`search`, `artifact` (serving's view); then `checkpoint`, `torchscript` (the exporter), `published`
(others' weights).
"""

from model.pretrained.torchvision_operators import declare_operators

declare_operators()  # before anything imports transformers
