"""Training of the captioner: the Lightning module, its data, and what it learns by."""
