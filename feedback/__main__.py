"""The operator's command for the database of feedback.

    python -m feedback status  --database URL               how much it holds
    python -m feedback delete  --database URL REQUEST_ID    all that is stored about a request
    python -m feedback upgrade --database URL               makes or changes the tables

The URL is sqlite:///FILE or postgresql://USER@HOST:PORT/NAME; by default that of GATEWAY_FEEDBACK,
or the file of `make serve`. A password is best left to PostgreSQL's own file ~/.pgpass: the command
line is visible to other users of the machine. The exit status is 1 if the database cannot be used,
and 3 if nothing is stored about the request.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from feedback import schema
from feedback.database import described, open_database, read_url, reading, reason
from feedback.erasing import erase
from feedback.errors import DatabaseRefused
from feedback.reading import counts
from feedback.tables import REVISION

#: Where `make serve` lets the gateway store feedback; relative to the folder of the repository.
DEFAULT = "sqlite:///data/feedback.db"
#: The variable that names another database, for the gateway too.
VARIABLE = "GATEWAY_FEEDBACK"


def default_database() -> str:
    """The database of `GATEWAY_FEEDBACK`, or else that of `make serve`."""
    return os.environ.get(VARIABLE, "").strip() or DEFAULT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m feedback", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("status", "how much the database holds"),
        ("delete", "delete all that is stored about a request"),
        ("upgrade", "make or change the tables; a gateway does it when it starts"),
    ):
        command = commands.add_parser(name, help=meaning)
        command.add_argument("--database", metavar="URL", default=default_database())
        if name == "delete":
            command.add_argument("request_id", help="X-Request-Id of its reply")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except DatabaseRefused as error:
        print(f"error: {error}", file=sys.stderr)
    except DBAPIError as error:
        where = described(read_url(given.database))
        print(f"error: {where} cannot be used: {reason(error)}", file=sys.stderr)
    return 1


def _run(given: argparse.Namespace) -> int:
    engine = open_database(given.database, create=given.command == "upgrade")
    where = described(engine.url)
    if given.command == "upgrade":
        changed = schema.upgrade(engine)
        print(f"{where}: {'changed to' if changed else 'is of'} version {REVISION}")
        return 0
    schema.check(engine)
    if given.command == "status":
        with reading(engine) as connection:
            found = counts(connection)
        print(
            f"{where}: {found.feedback} feedbacks, {found.corrections} of them with a correction; "
            f"{found.pictures} pictures ({found.picture_bytes / 1e6:.1f} MB); {found.answers} "
            "captioned pictures that may be rated"
        )
        return 0
    erased = erase(engine, given.request_id)
    print(
        f"{where}: deleted {erased.feedback} feedbacks, {erased.pictures} kept pictures and the "
        f"captions of {erased.answers} pictures of the request {given.request_id}"
    )
    return 0 if erased.feedback or erased.answers else 3


if __name__ == "__main__":
    sys.exit(main())
