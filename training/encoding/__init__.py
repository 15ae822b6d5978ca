"""What encoding writes to disk: features of a frozen CLIP, and pixels for a CLIP that is trained.

- encoder.py: the image encoder with its identity
- encode_dataset.py: encodes every image of a data set
- ranks.py: several processes that encode together
- feature_file.py: the file of features, reading
- feature_shards.py: the same, writing, with resumption after a kill
- pixel_cache.py: decoded pixels
- text_encoder.py: CLIP's text tower, for captions
"""
