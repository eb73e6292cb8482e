"""The one error that users see: bad input, said in one line."""

# a message may quote what a file holds, and a file may hold anything
LONGEST = 2000
# what torch says where it gets no memory, of a GPU or of the machine
NO_MEMORY = ("out of memory", "can't allocate memory")


class InputError(Exception):
    """Something outside the program is wrong; the message names the file and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(_shortened(message))


def is_out_of_memory(error: BaseException) -> bool:
    """Was there no memory left, on the machine or on its GPU?

    Of torch's errors the words tell: this module must not import it.
    """
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return any(words in str(error) for words in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """What an error of another library says first; its name, where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _shortened(message: str) -> str:
    """A message with its beginning and its end, where it is too long to be read."""
    if len(message) <= LONGEST:
        return message
    half = LONGEST // 2
    left_out = len(message) - 2 * half
    return f"{message[:half]} [{left_out:,} characters] {message[-half:]}"
