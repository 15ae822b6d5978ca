"""The interfaces of the gateway, one file each: our own, and those that existing programs speak."""
