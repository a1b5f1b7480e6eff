"""How fast the client is, beside other libraries and a plain socket: `python -m benchmarks --help`."""
