"""Keeps a sample of what was captioned, in Parquet files, for `python -m monitoring.drift`.

- settings.py has the limits, from the section `capture` of model-config.yaml.
- rows.py says what is kept of a picture.
- folder.py writes whole files and removes old ones.
- capturing.py takes rows from the handler and writes them in a thread of its own.
"""
