"""How a picture gets its caption from the TorchServe behind the gateway.

captioner.py   all pictures of a request: their turn, a deadline, one more try
fair_queue.py  the order in which pictures go to TorchServe
deadly.py      pictures that ended the captioner's process
torchserve.py  the client of TorchServe
backends.py    which TorchServe is asked
"""
