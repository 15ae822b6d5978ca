"""The TorchServe handler and what travels with it in the archive.

In the order of a request: `caption_handler` is what TorchServe calls; `requests/` reads what a
client sent; `request_images` decodes its pictures; `admission` and `caption_batch` caption those of
all requests together; `replies/` writes what goes back; `measures` counts, and `telemetry/`
tells of each request.
"""
