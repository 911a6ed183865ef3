"""Entry of the shipped bundle (its ``__main__.py``): ``python BUNDLE VERB ARGUMENT…``."""

import sys


def launch() -> int:
    """Run the verb; return its exit code.  If this code is damaged, say how to reinstall it."""
    status = 1
    try:
        from node.cli import main  # noqa: PLC0415 - it may be what is damaged

        status = main()
    except (ImportError, SyntaxError) as error:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] != "node":
            raise
        again = '"rain-deploy up" reinstalls it'
        print(f"rain-deploy's code on this node is damaged ({error}); {again}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(launch())
