"""What a light machine's program for its limit asks, instead of the system's own ``systemctl`` and so on."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

_SYSTEMCTL = """\
#!/bin/sh
case "$*" in
  poweroff) : >'{directory}/powered-off' ;;
  'enable --now rain-deploy-limit.timer') : >'{directory}/timer' ;;
  daemon-reload) ;;
  *) echo "a light machine's systemctl knows no $*" >&2; exit 1 ;;
esac
"""
_UPTIME = """\
#!/bin/sh
read -r since <'{directory}/booted' && echo "$since"
"""
_SS = """\
#!/bin/sh
grep -qE '^ *[0-9]+: {socket} [0-9A-F]+:[0-9A-F]+ 01 ' /proc/net/tcp || exit 0
echo '0 0 {address}:{port} 127.0.0.1:50000 users:(("sshd",pid=1,fd=4))'
"""
_DATE = """\
#!/bin/sh
[ "$1" = +%s ] && [ -e '{directory}/clock-ahead' ] || exec {date} "$@"
read -r ahead <'{directory}/clock-ahead'
echo $(($({date} +%s) + ahead))
"""


def write_stubs(bin_directory: Path, directory: Path, address: str, port: int) -> None:
    """Programs for the front of PATH; what they tell lies in ``directory``."""
    bin_directory.mkdir()
    packed = ipaddress.IPv4Address(address).packed
    values = {
        "directory": directory,
        "address": address,
        "port": port,
        "socket": f"{packed[::-1].hex().upper()}:{port:04X}",
        "date": shutil.which("date"),
    }
    for name, text in (("systemctl", _SYSTEMCTL), ("uptime", _UPTIME), ("ss", _SS), ("date", _DATE)):
        program = bin_directory / name
        program.write_text(text.format_map(values), encoding="utf-8")
        program.chmod(0o755)
