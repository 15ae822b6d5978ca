"""Captions of scenes.

- lexicon.py: the words and what each of them states
- captions.py: writes five captions of a scene
- statements.py: reads the claims of a caption and checks them against a scene
- accuracy.py: precision and recall of the claims over many captions
"""
