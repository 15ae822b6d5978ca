"""How serving computes the network's products: packed and narrow layers, and their memory."""
