"""Takes requests from HTTP and from the `intake` topic, and makes each a record on `requests`, or says why it is refused."""
