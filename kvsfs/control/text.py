"""A status in words: what `kvsfs status` prints without --json."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from kvsfs.control.told import DRAINING, NOT_MOUNTED, Told

LINES_EACH = 20
"""Of each kind of unstored things: a screen. --json has them all."""

_UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"))


def size(count: int) -> str:
    """Write bytes to three digits, for people."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.{0 if count >= 100 * unit else 1}f} {name}"
    return f"{count} B"


def span(seconds: float) -> str:
    """Write a duration in its largest unit, for people."""
    for unit, name in _TIMES:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def left(totals: Mapping[str, Any]) -> str:
    """Write what is left to do: `3 files (12 KiB), 1 removal, 1 failed`."""
    parts = []
    if totals["files"]:
        parts.append(f"{many(totals['files'], 'file')} ({size(totals['bytes'])})")
    if totals["removals"]:
        parts.append(many(totals["removals"], "removal"))
    if totals["failed"]:
        parts.append(f"{totals['failed']} failed for good")
    return ", ".join(parts) or "nothing"


def uploading(progress: Mapping[str, Any]) -> str:
    """Write what an upload has left to do; nothing at its end."""
    if not progress.get("files"):
        return ""
    return f"{many(progress['files'], 'file')} ({size(progress['bytes'])}) to go"


def warming(progress: Mapping[str, Any]) -> str:
    """Write how far a cache is filled: `120 of 1,000 files, 1.2 of 4.0 MiB`; nothing before that is known."""
    if not progress.get("all_files"):
        return ""
    files, all_files = progress["files"], progress["all_files"]
    return (
        f"{files:,} of {many(all_files, 'file')} ({size(progress['bytes'])} of {size(progress['all_bytes'])})"
    )


def not_done(pending: Mapping[str, Any]) -> str:
    """Write what the store has not done."""
    return f"{pending['path']}: {pending['error'] or 'not stored yet'}"


def discarded(pending: Mapping[str, Any]) -> str:
    """Write what a discard would do."""
    return f"{pending['path']} ({size(pending['bytes'])}): {pending['if_discarded']}"


def status(told: Told) -> str:
    """Write a status, several lines without a newline at the end."""
    lines = (f"  {name:9}  {text}" if name else f"    {text}" for name, text in rows(told))
    return "\n".join([heading(told), *lines])


def heading(told: Told) -> str:
    """Write what is mounted where."""
    return printable(_heading(told))


def rows(told: Told) -> Iterator[tuple[str, str]]:
    """Write the rest, each line with its name; one without goes on with the last."""
    return ((name, printable(text)) for name, text in _rows(told))


def pace(earlier: Told, told: Told) -> str:
    """Write what happened between two statuses of a mount, a second."""
    seconds = max(0.001, told["uptime_seconds"] - earlier["uptime_seconds"])
    before, now = earlier["store_traffic"], told["store_traffic"]

    def gained(name: str) -> float:
        return float(max(0, now[name] - before[name]) / seconds)

    kernel = sum(_kernel(told).values()) - sum(_kernel(earlier).values())
    return (
        f"{gained('total_requests'):.1f} requests a second, {size(int(gained('sent_bytes')))} sent, "
        f"{size(int(gained('received_bytes')))} received; {max(0, kernel) / seconds:.0f} of the kernel"
    )


def _kernel(told: Told) -> Mapping[str, int]:
    """Give the kernel's requests; a daemon that was started before kvsfs was upgraded does not tell them."""
    counts: Mapping[str, int] = told.get("kernel_requests", {})
    return counts


def printable(text: str) -> str:
    """Write what a terminal would obey as escapes: a record's name may hold any byte."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _heading(told: Told) -> str:
    place = told["mount_point"] or told["cache"]["folder"]
    source = told["source"] or "a store"
    if told["state"] == NOT_MOUNTED:
        return f"{place}: {source} is not mounted; the next mount goes on with what is left"
    if told["state"] == DRAINING:
        return f"{place}: {source} is unmounted; process {told['pid']} uploads what is left"
    if told["store"]["id"] is not None:
        source += f" (store {told['store']['id']})"
    return f"{place}: {source}, for {span(told['uptime_seconds'])}"


def _rows(told: Told) -> Iterator[tuple[str, str]]:
    mounted = told["state"] != NOT_MOUNTED
    if mounted:
        yield "mode", _mode(told)
        yield "cache", _cache(told["cache"])
    yield "left", left(told["left"])
    yield from _unstored(told)
    if told["cache"]["local_only_files"]:
        yield "local", f"{many(told['cache']['local_only_files'], 'file')} that no store is to have"
    if mounted:
        yield from _usage(told)


def _mode(told: Told) -> str:
    if told["read_only"]:
        return "read-only"
    if told["write_back_seconds"] is None:
        return "close waits for the store"
    return f"write-back: uploaded {told['write_back_seconds']:g} s after close"


def _cache(cache: Mapping[str, Any]) -> str:
    return f"{size(cache['clean_bytes'])} of {size(cache['limit_bytes'])} in {cache['folder']}"


def _unstored(told: Told) -> Iterator[tuple[str, str]]:
    if told["open_and_changed"]:
        yield "open", f"{many(told['open_and_changed'], 'file')} being written"
    for rename in told["folder_renames"]:
        done = f"{rename['done']} of {many(rename['total'], 'record')}"
        yield "renaming", f"{rename['old_path']} to {rename['path']}: {done}"
    texts = [
        *map(_upload, told["uploads"]),
        *map(_rename, told["renames"] if not told["folder_renames"] else ()),
        *map(_removal, told["removals"]),
    ]
    yield from (("", text) for text in texts[:LINES_EACH])
    if len(texts) > LINES_EACH:
        yield "", f"and {len(texts) - LINES_EACH} more: --json lists them"


def _upload(upload: Mapping[str, Any]) -> str:
    closed = f"closed {span(max(0.0, time.time() - upload['closed_at']))} ago"
    return f"{upload['path']}  {size(upload['size'])}, {closed}, {_prospect(upload)}"


def _prospect(upload: Mapping[str, Any]) -> str:
    attempts = f" after {many(upload['attempts'], 'attempt')}" if upload["attempts"] else ""
    if upload["failed"]:
        return f"failed for good{attempts}: {upload['error']}"
    error = f": {upload['error']}" if upload["error"] else ""
    if upload["uploading"]:
        return f"is uploaded just now{attempts}{error}"
    if upload["next_attempt_in"] is None:
        return f"waits{attempts}{error}"
    return f"next attempt in {span(upload['next_attempt_in'])}{attempts}{error}"


def _rename(rename: Mapping[str, Any]) -> str:
    error = f": {rename['error']}" if rename["error"] else ""
    return f"{rename['path']}  still {rename['old_path']} in the store{error}"


def _removal(removal: Mapping[str, Any]) -> str:
    error = f": {removal['error']}" if removal["error"] else ""
    return f"{removal['path']}  removed here, still in the store{error}"


def _usage(told: Told) -> Iterator[tuple[str, str]]:
    opened, traffic = told["opened"], told["store_traffic"]
    from_here = opened["cached"] + opened["confirmed"]
    total = from_here + opened["fetched"]
    share = f", {100 * from_here // total} % from here" if total else ""
    yield (
        "opened",
        f"{opened['cached']} from the cache, {opened['confirmed']} confirmed, {opened['fetched']} fetched{share}",
    )
    asked = ", ".join(
        f"{name} {count}" for name, count in sorted(_kernel(told).items(), key=lambda item: -item[1])
    )
    yield "kernel", f"{sum(_kernel(told).values())} requests ({asked})"
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(traffic["requests"].items()))
    yield "requests", f"{traffic['total_requests']} ({kinds}), {traffic['retries']} of them repeated"
    moved = f"{size(traffic['sent_bytes'])} sent, {size(traffic['received_bytes'])} received"
    yield "traffic", moved if traffic["answers"] else f"{moved}; the store does not answer"
    yield "limits", f"{_limits(traffic['rate_limits'])}; {traffic['rate_limited']} answers 429"
    for name, latency in sorted(traffic["latency_seconds"].items()):
        times = ", ".join(f"{part} {1000 * latency[part]:.0f} ms" for part in ("p50", "p95", "p99"))
        yield "latency", f"{name}: {times}"


def _limits(limits: Mapping[str, Any]) -> str:
    told = [
        f"{kind} {room['limit']} a second, {room['available']:.0f} at once"
        for kind, room in sorted(limits.items())
        if room["limit"] is not None
    ]
    return ", ".join(told) or "none known"


def many(count: int, noun: str) -> str:
    """Write how many there are of something."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
