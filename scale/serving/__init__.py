"""The captioner on Ray Serve: `python -m scale.serve`, or `application:build` in a Serve config.

Reading order:

    application   what is deployed, with its settings
    replica       one captioner: takes requests, batches them, says how it is
    http_request  a request of HTTP as the handler's code reads it; its route
    counts        the metrics of all replicas, in Prometheus' format
"""
