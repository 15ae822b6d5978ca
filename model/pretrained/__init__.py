"""Other people's weights: Hugging Face's, open_clip's, and the published ClipCap captioners."""
