"""What the dashboard shows: its rows, their panels, and the queries of each.

`dashboard.py` writes them for Grafana, and `picture.py` draws them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

#: What Grafana replaces by four scrapes' time or more, so that a rate always has two values.
RATE = "$__rate_interval"


@dataclasses.dataclass(frozen=True)
class Query:
    """One or more lines of a panel.

    Attributes:
        expr: PromQL.
        legend: Name of each line; `{{label}}` is its value.
    """

    expr: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """A graph, or a single figure.

    Attributes:
        title: What it shows.
        about: How to read it.
        queries: Its lines.
        unit: Grafana's name of the unit.
        limit: Where an alert begins; a red line, or the value from which a figure is red.
        figure: Whether it is a single figure.
        low_is_bad: Whether a figure is red below its limit instead of above.
    """

    title: str
    about: str
    queries: Sequence[Query]
    unit: str = "short"
    limit: float | None = None
    figure: bool = False
    low_is_bad: bool = False


#: Title of a row -> its panels.
ROWS: dict[str, Sequence[Panel]] = {
    "Does it work": [
        Panel(
            "Gateway answers",
            "1 while Prometheus gets an answer from every gateway.",
            [Query('min(up{job="clipcap"})', "up")],
            limit=1,
            figure=True,
            low_is_bad=True,
        ),
        Panel(
            "Ready workers",
            "Processes that caption. 0 means that nobody gets a caption.",
            [Query("sum(gateway_torchserve_workers_ready)", "workers")],
            limit=1,
            figure=True,
            low_is_bad=True,
        ),
        Panel(
            "Alerts that fire",
            "Their names are below, and at the page Alerts of Prometheus.",
            [Query('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts")],
            limit=1,
            figure=True,
        ),
        Panel(
            "Failed requests",
            "Share of the last five minutes' requests with pictures that got 500 or above. The "
            "objective is at most 5%.",
            [Query("clipcap:errors:ratio5m", "failed")],
            "percentunit",
            limit=0.05,
            figure=True,
        ),
        Panel(
            "p95",
            "One request in twenty took longer, in the last five minutes. The objective is 10 s.",
            [Query("clipcap:request_seconds:p95", "p95")],
            "s",
            limit=10,
            figure=True,
        ),
        Panel(
            "Captions a second",
            "Pictures that got their caption.",
            [
                Query(
                    f'sum(rate(gateway_pictures_total{{outcome="captioned"}}[{RATE}]))', "captions"
                )
            ],
            figure=True,
        ),
    ],
    "Requests": [
        Panel(
            "Requests by status",
            "Requests a second. 499 is a client that left; 429 and 503 are refusals.",
            [Query(f"sum by (status) (rate(gateway_requests_total[{RATE}]))", "{{status}}")],
            "reqps",
        ),
        Panel(
            "Seconds to an answer",
            "Requests with pictures. The line is the objective of the 95th percentile.",
            [
                Query("clipcap:request_seconds:p50", "p50"),
                Query("clipcap:request_seconds:p95", "p95"),
            ],
            "s",
            limit=10,
        ),
        Panel(
            "Failed and refused",
            "Share of requests with pictures. Failed: 500 and above. Refused: 429 and 503.",
            [
                Query("clipcap:errors:ratio5m", "failed"),
                Query("clipcap:refusals:ratio5m", "refused"),
            ],
            "percentunit",
            limit=0.05,
        ),
        Panel(
            "Pictures by outcome",
            "Pictures a second: captioned, or the code of their error.",
            [Query(f"sum by (outcome) (rate(gateway_pictures_total[{RATE}]))", "{{outcome}}")],
        ),
        Panel(
            "Requests by route",
            "Requests a second by the interface that they use.",
            [Query(f"sum by (route) (rate(gateway_requests_total[{RATE}]))", "{{route}}")],
            "reqps",
        ),
        Panel(
            "Sent again, and left",
            "Pictures a second that were sent to TorchServe once more, because a worker or a "
            "connection ended; requests a second whose client left.",
            [
                Query(f"sum(rate(gateway_pictures_resent_total[{RATE}]))", "sent again"),
                Query(f"sum(rate(gateway_requests_abandoned_total[{RATE}]))", "client left"),
            ],
        ),
    ],
    "Queue": [
        Panel(
            "Pictures waiting and in TorchServe",
            "Waiting: in the gateway, where clients take turns. A queue that stays means that more "
            "come than are captioned.",
            [
                Query("sum(gateway_pictures_waiting)", "waiting"),
                Query(
                    "sum(gateway_pictures_in_flight - gateway_pictures_waiting)", "in TorchServe"
                ),
                Query("sum(gateway_torchserve_queue)", "in TorchServe's queue"),
            ],
        ),
        Panel(
            "Connections",
            "Open connections, and connections a second that were ended before a request was read.",
            [
                Query("sum(gateway_connections)", "open"),
                Query(
                    f"sum by (reason) (rate(gateway_connections_refused_total[{RATE}]))",
                    "refused: {{reason}}",
                ),
            ],
        ),
        Panel(
            "Bytes of requests in memory",
            "At GATEWAY_MAX_BODIES_BYTES requests are refused.",
            [Query("sum(gateway_body_bytes)", "bytes")],
            "bytes",
        ),
    ],
    "Captioner": [
        Panel(
            "Seconds of a batch by step",
            "Mean time of each step of a batch in the worker.",
            [
                Query(
                    f"sum(rate(clipcap_{step}_seconds_sum[{RATE}]))"
                    f" / sum(rate(clipcap_{step}_seconds_count[{RATE}]))",
                    step,
                )
                for step in ("decode", "encode", "generate")
            ],
            "s",
        ),
        Panel(
            "Pictures of a batch",
            "Mean. Large batches use the processor better; 1 means that there is little to do.",
            [
                Query(
                    f"sum(rate(clipcap_batch_images_sum[{RATE}]))"
                    f" / sum(rate(clipcap_batch_images_count[{RATE}]))",
                    "pictures",
                )
            ],
        ),
        Panel(
            "Tokens a second",
            "Tokens of all captions that were returned.",
            [Query(f"sum(rate(clipcap_tokens_total[{RATE}]))", "tokens")],
        ),
        Panel(
            "Ends of captions",
            "Share of captions by why they end. More `length` means that captions are cut.",
            [
                Query(
                    f"sum by (Reason) (rate(clipcap_finish_reasons_total[{RATE}]))"
                    " / ignoring (Reason) group_left"
                    f" sum(rate(clipcap_finish_reasons_total[{RATE}]))",
                    "{{Reason}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Errors of the handler",
            "Requests a second that the handler refused or failed, by code.",
            [Query(f"sum by (Code) (rate(clipcap_errors_total[{RATE}]))", "{{Code}}")],
        ),
    ],
    "Drift": [
        Panel(
            "Share of unusual pictures",
            "Pictures of the last hour that are more unusual than 99 of 100 validation pictures. "
            "1% are expected; the line is the alert.",
            [Query("clipcap:unusual:ratio1h", "unusual")],
            "percentunit",
            limit=0.05,
        ),
        Panel(
            "How unusual pictures are",
            "Median and 5% quantile of the last hour's p-values. On a calm day 0.5 and 0.05.",
            [
                Query(
                    f"histogram_quantile({part}, "
                    "sum by (le) (increase(clipcap_ood_p_value_bucket[1h])))",
                    name,
                )
                for part, name in ((0.5, "median"), (0.05, "5% quantile"))
            ],
        ),
    ],
    "Processes": [
        Panel(
            "Memory",
            "Resident memory of gateway and worker. It must not rise for hours.",
            [Query("clipcap:resident_bytes", "{{process}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Processor time of the gateway",
            "Cores that it uses; it cannot use more than one.",
            [
                Query(
                    f"sum by (instance) (rate(gateway_process_cpu_seconds_total[{RATE}]))",
                    "{{instance}}",
                )
            ],
        ),
        Panel(
            "Open files of the gateway",
            "Each connection is one.",
            [Query("sum by (instance) (gateway_process_open_fds)", "{{instance}}")],
        ),
    ],
}
