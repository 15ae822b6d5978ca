"""Watches a captioner in production.

canary.py   `python -m monitoring.canary`: asks about pictures whose captions are known
golden/     those pictures, and how replies are compared
"""
