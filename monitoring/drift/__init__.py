"""What has moved in what a server captured (`python -m monitoring.drift`).

- captures.py reads the Parquet files of `handler.capture`, a part at a time.
- comparison.py compares columns of numbers with Evidently.
- words.py finds words that came and went.
- page.py writes the page that an operator sees.
- __main__.py is the command.
"""
