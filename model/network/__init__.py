"""The captioner as the paper draws it: encoder -> mapper -> language model, and the search.

Reading order: `captioner`, `mapper`, `encoder` (what is trained); `vision_transformer`, `decoder`,
`search` (the same weights as serving computes them).
"""
