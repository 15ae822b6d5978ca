"""What every request passes first, whatever it asks.

door.py     its id, its key, its limits; headers, log and metrics of every reply
keys.py     the file of hashed keys
callers.py  who asks, until when, and how often it may
bodies.py   limits on bodies: of one, of all together, and how slowly they come
leaving.py  a client that leaves ends what is done for it
"""
