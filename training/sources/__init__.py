"""Where captions come from: drawn scenes, a folder of one's own, COCO. Each gives one data set."""
