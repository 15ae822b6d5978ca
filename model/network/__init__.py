"""The captioner as the paper draws it: encoder -> mapper -> language model, and the search.

Reading order: `captioner`, `encoder`, `mapper` (what is trained); `vision_transformer`, `decoder`,
`search` (the same weights as they are served); `conversion` (from the first to the second).
"""

import model.pretrained  # noqa: F401 - prepares the import of transformers
