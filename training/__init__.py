"""From a caption data set to an archive: prepare, features, train, evaluate, export, archive."""

import model.pretrained  # noqa: F401 - prepares the import of transformers
