"""What is in a scene, and where.

- catalogue.py: the places, things, colours and relations that scenes may have
- scene.py: the contents of one scene
- layout.py: boxes of the things, such that the relation is true
- sampling.py: a scene at random
"""
