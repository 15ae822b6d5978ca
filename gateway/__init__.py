"""The public face of the captioner: an HTTP server in front of TorchServe, and its web page.

`python -m gateway` starts it; `docs/api.md` describes what it answers.

settings.py  every setting: environment variables and a TOML file
reload.py    SIGHUP: another TorchServe or a renewed certificate while it runs
app.py       puts the parts together
errors.py    one error object on every path
measures.py  what it counts, for Prometheus
telemetry/   what it tells of each request: lines of the log, spans of a trace
key.py       the command that makes an API key

The parts, in the order that a request meets them; each folder's `__init__` lists its files:

listening/   how connections come in
access/      what every request passes first
routes/      what is answered on which path
pictures/    the pictures and options of a request
captioning/  how a picture gets its caption from TorchServe
feedback/    what people think of captions, on its way to the database
page/        the web page
"""

__version__ = "1.0.0"
