"""The captioner as programs of `torch.export`, without TorchScript.

A folder of programs holds the same captioner as an artifact folder. Encoder, mapper, decoder,
output layer and quality head are one `.pt2` file each, and the search over them is the Python code
of `model.network.search`.

Reading order: `modules`, `export`, `packing`, `load`.
"""
