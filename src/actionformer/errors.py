"""The one error that users see: bad input, said in one line."""


class InputError(Exception):
    """Something outside the program is wrong; the message names the file and what to do."""
