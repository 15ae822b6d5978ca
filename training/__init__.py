"""From a caption data set to an archive: prepare, features, train, evaluate, export, archive."""
