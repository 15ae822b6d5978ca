"""What runs in the processes of Ray: decoding and captioning."""
