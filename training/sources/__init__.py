"""Where captions come from: drawn scenes, one's own folder, tar shards, COCO; each a data set."""
