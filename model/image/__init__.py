"""From the bytes of an image file to pixels, or to a refusal.

Reading order: `refusals`, `limits`, `decode`, `preprocessing`.
"""
