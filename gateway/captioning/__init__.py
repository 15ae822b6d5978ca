"""How a picture gets its caption from the TorchServe behind the gateway.

captioner.py           all pictures of a request: their turn, a deadline, one more try
fair_queue.py          the order in which pictures go to TorchServe
deadly.py              pictures that ended the captioner's process
torchserve.py          the client of TorchServe
backend.py             one TorchServe, and what is known of it
backends.py            which TorchServe is asked
trial.py               a second captioner that is tried out: its share of the requests
two_captioners.py      which of the two answers, and what happens when the second one fails
shadow.py              copies of pictures whose captions by both are compared
version_measures.py    what is counted of both
torchserve_metrics.py  the metrics of both on one page
"""
