"""Which store the user means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from kvsfs.config import check_api_url
from kvsfs.errors import CommandError, ExitCode

FORMS = (
    "a store's ID, ~name or name (your own), user/name, run:RUN_ID, actor:user/actor or task:user/task "
    "(with ?status= and ?origin=), a https://…/keys?signature=… URL, account: (all your stores), or local:[name]"
)

_ID = re.compile(r"[a-zA-Z0-9]{17}")
_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"  # the API's: 63 characters, dashes within
_OWN = re.compile(rf"~?({_NAME})")
_OTHERS = re.compile(rf"([a-zA-Z0-9][a-zA-Z0-9._-]*)[/~]({_NAME})")
_KEYS_URL = re.compile(r"(?P<base>https?://[^/?#]+(?:/[^?#]*)?)/v2/key-value-stores/(?P<store>[^/?#]+)/keys")

LOCAL = "local:"
"""All stores of this machine, and what the source of one of them begins with."""

DEFAULT_LOCAL_NAME = "default"

STATUSES = ("READY", "RUNNING", "SUCCEEDED", "FAILED", "TIMING-OUT", "TIMED-OUT", "ABORTING", "ABORTED")
"""What a run can be (the API's ActorJobStatus)."""

_ORIGIN = re.compile("[A-Z]{2,20}")
"""WEB, API, SCHEDULER and so on: the list grows, so the API is the judge."""


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A store at the API, by the path segment that names it there."""

    store_id: str


@dataclass(frozen=True, slots=True)
class RunSource:
    """The default store of a run: of one, or of whichever is the last one of an Actor or a task."""

    path: str
    """Of the run at the API, below /v2/."""
    filters: Mapping[str, str] = field(default_factory=dict)
    is_last: bool = False
    """Whether the path may lead to another run later."""


@dataclass(frozen=True, slots=True)
class SharedSource:
    """A store that somebody shares by the URL of its keys."""

    base_url: str
    store_id: str
    signature: str | None = field(default=None, repr=False)
    """A secret. None: the store is public."""
    prefix: str = ""
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A store of the embedded server, by name."""

    name: str
    made: bool = True
    """Whether it is made when it is missing."""


@dataclass(frozen=True, slots=True)
class AccountSource:
    """All stores of an account."""


StoreSource = RemoteSource | RunSource | SharedSource | LocalSource

Source = StoreSource | AccountSource


def parse_source(text: str) -> Source:
    """Read a source as the user wrote it. Raises CommandError with the forms there are."""
    scheme, colon, rest = text.partition(":")
    source: Source | None
    if colon and scheme in _SCHEMES:
        source = _SCHEMES[scheme](text if scheme.startswith("http") else rest)
    else:
        source = _by_name(text)
    if source is None:
        raise _invalid(f"{shown(text)!r} is not a store: give {FORMS}")
    return source


def shown(text: str) -> str:
    """Give a source without what only its reader may know: for messages, logs and the kernel's table of mounts."""
    if "://" not in text:
        return text
    return re.sub(r"//[^/@]*@", "//", re.split("[?#]", text, maxsplit=1)[0])


def is_secret(text: str) -> bool:
    """Tell whether a source holds what must not be seen in `ps`."""
    return shown(text) != text


def is_store_name(text: str) -> bool:
    """Tell whether the API takes a text as a store's name."""
    return re.fullmatch(_NAME, text) is not None


def _by_name(text: str) -> RemoteSource | None:
    if _ID.fullmatch(text):
        return RemoteSource(text)
    if match := _OWN.fullmatch(text):
        return RemoteSource(f"~{match[1]}")
    if match := _OTHERS.fullmatch(text):
        return RemoteSource(f"{match[1]}~{match[2]}")
    return None


def _local(rest: str) -> LocalSource | None:
    return LocalSource(rest or DEFAULT_LOCAL_NAME) if not rest or is_store_name(rest) else None


def _account(rest: str) -> AccountSource | None:
    return None if rest else AccountSource()


def _run(rest: str) -> RunSource | None:
    return RunSource(f"actor-runs/{rest}") if _ID.fullmatch(rest) else None


def _last_run_of_actor(rest: str) -> RunSource | None:
    return _last_run("actors", rest)


def _last_run_of_task(rest: str) -> RunSource | None:
    return _last_run("actor-tasks", rest)


def _last_run(kind: str, rest: str) -> RunSource | None:
    name, _, query = rest.partition("?")
    owner = _by_name(name)
    if owner is None:
        return None
    return RunSource(f"{kind}/{owner.store_id}/runs/last", _filters(query), is_last=True)


def _filters(query: str) -> dict[str, str]:
    found = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name == "status":
            if value.upper() not in STATUSES:
                raise _invalid(f"status={value}: a run's status is one of {', '.join(STATUSES)}")
        elif name != "origin":
            raise _invalid(f"{name}: the last run is filtered by ?status= and ?origin= only")
        elif not _ORIGIN.fullmatch(value.upper()):
            raise _invalid(f"origin={value}: a run's origin is a word as WEB, API or SCHEDULER")
        found[name] = value.upper()
    return found


def _shared(url: str) -> SharedSource | None:
    match = _KEYS_URL.fullmatch(url.partition("?")[0])
    if match is None:
        return None
    try:
        check_api_url(match["base"])
        query = parse_qs(urlsplit(url).query)
    except ValueError:
        return None

    def last(name: str) -> str | None:
        return query[name][-1] if name in query else None

    return SharedSource(
        match["base"], match["store"], last("signature"), last("prefix") or "", last("collection")
    )


def _invalid(message: str) -> CommandError:
    return CommandError(ExitCode.INVALID_SOURCE, message)


_SCHEMES = {
    "account": _account,
    "local": _local,
    "run": _run,
    "actor": _last_run_of_actor,
    "task": _last_run_of_task,
    "http": _shared,
    "https": _shared,
}
