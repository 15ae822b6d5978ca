"""The steps that make the tables, in `versions/`; Alembic runs them (see `feedback.schema`)."""
