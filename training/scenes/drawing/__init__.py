"""Draws a scene.

- picture.py: the whole picture
- stage.py: the canvas, in units of the scene
- paint.py: colours and light
- sky.py, backdrop.py: the landscape
- pen.py: draws in the box of one thing
- things.py: each kind of thing
"""
