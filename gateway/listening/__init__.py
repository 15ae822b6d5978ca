"""How connections come in: accepted and counted, with TLS if wanted, with limits on time and size.

server.py      runs uvicorn, and ends it without losing a request
listener.py    accepts connections, as many as allowed
connection.py  one connection: HTTP/1.1 with limits
tls.py         certificate files, read and renewed
"""
