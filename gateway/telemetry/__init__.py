"""What the gateway tells of each request, beside the counters of `gateway/measures.py`.

record.py   what is known of the request that is served now
log.py      the log as lines of JSON
tracing.py  spans, sent to a collector of OpenTelemetry
"""
