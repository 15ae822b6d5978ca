"""Watches a captioner in production.

canary.py      `python -m monitoring.canary`: asks about pictures whose captions are known
golden/        those pictures, and how replies are compared
compare.py     `python -m monitoring.compare`: two captioners side by side
histogram.py   figures of a histogram, with their intervals
key.py         the key with which a gateway is asked
"""
