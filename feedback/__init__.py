"""What people think of captions: thumbs, better captions, and pictures to train on, in a database.

The gateway writes here, `monitoring.quality` and the data source `feedback` of
`training.prepare` read. It is SQLite by default, PostgreSQL by its URL, both through SQLAlchemy.

`python -m feedback` is the operator's command; docs/feedback.md describes it.

errors.py      the two errors of this package
tables.py      the tables
database.py    opens a database by its URL
schema.py      brings the tables of a database to this version
migrations/    the steps of that, run by Alembic
answers.py     what was answered lately, so that a feedback is about a real caption
opinions.py    the feedback of people: checked, added, replaced, counted
erasing.py     deletes what a person asks for, and what is too old
reading.py     reads feedback row by row, for figures and data sets
"""
