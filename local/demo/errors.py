"""The one error that people see when the demo cannot go on."""


class DemoError(Exception):
    """The demo cannot start or broke; the first line of the message says why, further ones show a log."""
