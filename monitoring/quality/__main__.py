"""How good captions are, by the feedback of people: by week and by model version.

    python -m monitoring.quality --database URL
    python -m monitoring.quality --plot reports/quality.png --json reports/quality.json
    python -m monitoring.quality --textfile /var/lib/prometheus/node-exporter/clipcap_quality.prom

It prints a table: number of feedbacks, share of thumbs up, CIDEr of the captions against people's
corrections, and the words that are corrected most often. The URL is that of the gateway,
sqlite:///FILE or postgresql://USER@HOST:PORT/NAME; by default that of GATEWAY_FEEDBACK, or the file
of `make serve`. The database is read, row by row, and the gateway goes on writing meanwhile.

For Prometheus run it with --textfile from cron, once an hour; docs/feedback.md says how.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from feedback import schema
from feedback.__main__ import default_database
from feedback.database import described, open_database, read_url, reading, reason
from feedback.errors import DatabaseRefused
from monitoring.quality.figures import DAY, measure
from monitoring.quality.gauges import write_gauges
from monitoring.quality.plot import draw
from monitoring.quality.table import as_json, print_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the feedback; print the table, and write what is asked for.

    Returns:
        The exit status: 0, 1 if the database or a file cannot be used, or 2 if the command line is
        wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m monitoring.quality", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--database", metavar="URL", default=default_database())
    parser.add_argument("--weeks", type=int, default=26, help="how far back to look (26)")
    parser.add_argument("--words", type=int, default=15, help="corrected words to list (15)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot as PNG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--textfile", type=Path, metavar="FILE.prom", help="write gauges for Prometheus"
    )
    given = parser.parse_args(arguments)
    for name in ("weeks", "words"):
        if not 1 <= getattr(given, name) <= 5000:
            parser.error(f"--{name} is {getattr(given, name)}; it must be from 1 to 5000")
    if given.textfile and given.textfile.suffix != ".prom":
        parser.error(f"--textfile is {given.textfile}; the node exporter reads only *.prom")
    try:
        _run(given)
    except DatabaseRefused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except DBAPIError as error:
        where = described(read_url(given.database))
        print(f"error: {where} cannot be used: {reason(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    engine = open_database(given.database)
    schema.check(engine)
    now = time.time()
    with reading(engine) as connection:
        quality = measure(connection, now - 7 * DAY * given.weeks, now)
    for file in (given.plot, given.json):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    print_tables(quality, given.words)
    if given.plot:
        draw(quality, given.plot)
    if given.json:
        given.json.write_text(json.dumps(as_json(quality, given.words), indent=2) + "\n")
    if given.textfile:
        write_gauges(quality, given.textfile, now)
    print(f"{quality.rows} feedbacks of {given.weeks} weeks in {described(engine.url)}")


if __name__ == "__main__":
    sys.exit(main())
