"""How serving computes linear layers: precisions, packed layers, and their memory.

Reading order: `precision`, `linear`, `int8_linear`, `output_layer`, `packing`, `memory`, `loading`.
"""
