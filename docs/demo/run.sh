#!/bin/sh
# The first five minutes: a store of the embedded server as a folder, and what the usual tools do in it.
# usage: docs/demo/run.sh DIR    (./dev demo [DIR] runs it)
set -eu

here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$(cd -- "$here/../.." && pwd)
store=$1
PATH=$root/.venv/bin:$PATH
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

mkdir -p -- "$store"
if mountpoint -q -- "$store"; then
    echo "$store is mounted already: $(findmnt -n -o SOURCE --mountpoint "$store")"
else
    show kvsfs mount local:demo "$store"
fi

mkdir "$copies/in" "$copies/out"
python "$here/make_records.py" "$copies/in"
show cp -r "$copies/in/." "$store"

show ls -l "$store"
show getfattr -d "$store/INPUT" "$store/screenshot.png" "$store/what I found.txt"
show grep -rn teapot "$store"

show rsync -a "$store/" "$copies/out/"
cd "$copies/in"
# `+` and not `;`: only then does find fail when a command does.
find . -type f -exec sh -c 'for file; do cmp -- "$file" "../out/$file" || exit; done' cmp {} +
printf '\n%s files came back the same, byte for byte\n' "$(find . -type f | wc -l)"

printf '\nThe store stays mounted: look at it with `ls %s`, unmount it with `%s umount %s`\n' \
    "$store" "$root/.venv/bin/kvsfs" "$store"
