"""Rain scripts of the tests, as users write them."""

SQUARES = """\
import time
from rain.client import Client, remote

@remote()
def square(ctx, x):
    time.sleep(0.05)
    return str(x * x)

client = Client("localhost", 7210)
session = client.new_session("squares", default=True)
tasks = [square(x, name=f"square x={x}") for x in range(20)]
for task in tasks:
    task.output.keep()
session.submit()
for task in tasks:
    print(task.output.fetch().get_bytes().decode())
"""
"""20 tasks of 50 ms, their results in order."""

WAITS = """\
import pathlib, sys, time
pathlib.Path("early.txt").write_text("early")
print("begun", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("gone on", flush=True)
pathlib.Path("late.txt").write_text("late")
"""
"""Says that it has begun, and goes on when the file of its argument exists; no Rain in it."""
