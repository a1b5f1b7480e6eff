"""How long a test waits for what must come."""

# Long enough for a busy machine, short enough to fail before pytest-timeout does. No test waits for it to pass.
PATIENCE = 20.0
