"""The captioner as programs of `torch.export`, without TorchScript.

A folder of programs holds the same captioner as an artifact folder. Encoder, mapper, decoder and
output layer are one `.pt2` file each. The search over them is the Python code of
`model.network.search`, and what else it needs (drafts, spelling, the quality head) is in
`tables.pt`.

Reading order: `modules`, `export`, `packing`, `load`.
"""
