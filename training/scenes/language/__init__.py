"""Captions of scenes.

- lexicon.py: the words and what each of them states
- captions.py: writes five captions of a scene
- statements.py: reads the claims of a caption and checks them against a scene
- turned.py: a caption with its relation turned round
- moulds.py: what is left of a caption without all that it states
- accuracy.py: precision and recall of the claims over many captions
"""
