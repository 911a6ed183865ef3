#!/bin/sh
# usage: count.sh WORD TEXT -- says how often the word stands in the text, and leaves the lines that have it
# in lines.txt of the directory in which it was started.
set -eu
grep -n -i -w -e "$1" "$2" > lines.txt || true
tr -c '[:alpha:]' '\n' < "$2" | grep -c -i -x -e "$1" || true
