"""Run an external program as a task on each node, and fetch what it prints and the files that it writes.

Send the program and its data along with the script:

    rain-deploy run --files examples/execute examples/execute.py
"""

import pathlib

from rain.client import Client, Output, tasks

HERE = pathlib.Path(__file__).resolve().parent  # the script's directory has the same path on all nodes
PROGRAM = str(HERE / "execute" / "count.sh")
TEXT = str(HERE / "execute" / "text.txt")
WORDS = ["rain", "river", "road", "wheel", "snow"]

client = Client("localhost", 7210)
session = client.new_session("Counting words", default=True)

# Each task runs the program in its own directory.  Its outputs: what it prints, and the file that it writes.
counts = [
    tasks.Execute(
        [PROGRAM, word, TEXT],
        name=f"count word={word}",
        stdout=True,
        output_paths=[Output(f"{word}.txt", path="lines.txt")],
    )
    for word in WORDS
]

# An output of one task can be an argument of another.  The program gets the path of a file.
together = tasks.Execute(
    ["sort", "-n", "-u", *[task.outputs[1] for task in counts]], stdout=True, name="lines of all words"
)

for task in [*counts, together]:
    task.keep_outputs()
session.submit()

for word, task in zip(WORDS, counts, strict=True):
    count = int(task.outputs[0].fetch().get_str())
    lines = task.outputs[1].fetch().get_str().splitlines()
    print(f"{word:<6} {count} times in {len(lines)} lines")

print("\nLines with any of them:")
print(together.output.fetch().get_str(), end="")
