"""The public face of the captioner: an HTTP server in front of TorchServe, and its web page.

`python -m gateway` starts it; `docs/api.md` describes what it answers.
"""

__version__ = "1.0.0"
