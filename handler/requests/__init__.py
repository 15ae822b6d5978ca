"""Reading requests: the forms that clients send, each turned into a `CaptionRequest`."""
