"""The main job: one run through every room, one verdict on one screen, one page that links every report.

It starts the other rooms as the commands a person would type and reads the files they leave; it imports none of them.
"""

from pathlib import Path

# How a person calls this room: from the repository, or by the command that `pip install` made.
COMMAND = "lci-check" if Path(__file__).parents[1].name == "lambda_code_interpreter" else "python -m check"
