"""Requests in, captions out: what answers a batch, whatever server took its requests.

In the order of a request: `batch_captioner` answers a batch; `requests/` reads what a client sent;
`request_images` decodes its pictures; `admission` and `caption_batch` caption those of all requests
together; `replies/` writes what goes back; `measures` counts, and `telemetry/` tells of each
request. `caption_handler` is what TorchServe calls; all that is TorchServe's is there. The folder
travels in TorchServe's archive.
"""
