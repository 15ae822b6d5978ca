"""The captioner itself: image -> pixels -> feature -> prefix -> caption.

Reading order: `config`, `mapper`, `captioner` (training's view), `decoder`, `search`, `artifact`.
"""
