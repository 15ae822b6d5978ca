"""The check of the image: `python -m deploy.container_check`.

__main__.py      builds it, runs both servers as deploy/compose.yaml does, and captions a picture
base.py          the base image, made without a registry
pip_settings.py  pip in the build finds what pip finds on this machine
"""
