"""From the bytes of an image file to pixels, or to a refusal.

Reading order: `refusals`, `jpeg`, `limits`, `colour`, `decode`, `preprocessing`.
"""
