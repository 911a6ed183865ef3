"""Write the report of results that are here, and list it in their manifest."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from rain_deploy.results.manifest import MANIFEST, listed, listed_paths, read_manifest, write_manifest
from rain_deploy.results.partial import partial_directory
from rain_deploy.results.report.maker import NoReport
from rain_deploy.results.unpack import PulledFile

REPORT = "report.html"


def renew_report(out: Path, make: Callable[[Path], bytes]) -> Path:
    """Make the report of the results in ``out``, also again; return its path.

    Raises NoReport, also if there are no results, or if a file of the user has its name.
    """
    page = make(out)
    try:
        with partial_directory(out, lambda _: None) as partial:
            found = read_manifest(out)
            if found is None:
                raise NoReport(f"there are no results in {out}")
            if os.path.lexists(out / REPORT) and REPORT not in listed_paths(found):
                raise NoReport(f"{out / REPORT} is another file")
            (partial / REPORT).write_bytes(page)
            file = PulledFile(REPORT, len(page), hashlib.sha256(page).hexdigest())
            found["files"] = [*(one for one in found["files"] if one["path"] != REPORT), listed(file)]
            write_manifest(partial, found).replace(out / MANIFEST)
            return (partial / REPORT).replace(out / REPORT)
    except OSError as error:
        raise NoReport(f"{out} cannot be written: {error.strerror}") from error
