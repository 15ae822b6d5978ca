"""Writing replies: captions, errors, and what may stand beside a caption."""
