"""Judges that commands name as MODULE:OBJECT."""

import os
import time
from pathlib import Path

from confroute.types import Generation, Usage


def right(messages):
    """Choose the answer that says 4."""
    text = messages[1].text
    first = "A" if text.index("It is 4.") < text.index("It is 5.") else "B"
    return Generation(text=f"So.\nVERDICT: {first}", usage=Usage(input_tokens=1000, output_tokens=10))


def slow(messages):
    """The same, slowly, with one byte per call written to the file HEARD."""
    time.sleep(float(os.environ["SLOWLY_S"]))
    with Path(os.environ["HEARD"]).open("ab") as file:
        file.write(b".")
    return right(messages)
