"""What the handler tells of each request, beside the counters of `handler/measures.py`.

phases.py       when the steps of a batch began and ended
request_log.py  a line of JSON for each request
tracing.py      spans, sent to a collector of OpenTelemetry
"""
