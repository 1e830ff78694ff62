"""What a source means, and what is told of one that means nothing."""

from __future__ import annotations

import pytest

from kvsfs.errors import CommandError, ExitCode
from kvsfs.store.sources import (
    FORMS,
    LocalSource,
    RemoteSource,
    RunSource,
    SharedSource,
    Source,
    is_secret,
    parse_source,
    shown,
)

ID = "WkzbQMuFYuamGv3YF"
URL = f"https://api.apify.com/v2/key-value-stores/{ID}/keys"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ID, RemoteSource(ID)),
        (f"~{ID}", RemoteSource(f"~{ID}")),
        ("my-store", RemoteSource("~my-store")),
        ("~my-store", RemoteSource("~my-store")),
        ("joe/store", RemoteSource("joe~store")),
        ("joe~store", RemoteSource("joe~store")),
        ("local:", LocalSource("default")),
        ("local:demo", LocalSource("demo")),
        (f"run:{ID}", RunSource(f"actor-runs/{ID}")),
        ("actor:joe/scraper", RunSource("actors/joe~scraper/runs/last", is_last=True)),
        (f"actor:{ID}", RunSource(f"actors/{ID}/runs/last", is_last=True)),
        ("task:mine", RunSource("actor-tasks/~mine/runs/last", is_last=True)),
        (
            "task:joe/nightly?status=succeeded&origin=SCHEDULER",
            RunSource(
                "actor-tasks/joe~nightly/runs/last",
                {"status": "SUCCEEDED", "origin": "SCHEDULER"},
                is_last=True,
            ),
        ),
        (URL, SharedSource("https://api.apify.com", ID)),
        (
            f"{URL}?signature=abc&limit=10&prefix=img&collection=pages",
            SharedSource("https://api.apify.com", ID, "abc", "img", "pages"),
        ),
        (
            f"http://127.0.0.1:8765/at/v2/key-value-stores/{ID}/keys?signature=a-_b",
            SharedSource("http://127.0.0.1:8765/at", ID, "a-_b"),
        ),
    ],
)
def test_a_source(text: str, expected: Source) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "a/b/c", "~", "-name", "../x", "x" * 64, "name-", "ä"),
        *("local:a/b", "run:", "run:short", "actor:", "actor:a/b/c", "task:?status=SUCCEEDED", "runs:abc"),
        *("https://example.com/x", f"{URL}/more", "https://me:pw@api.apify.com/v2/key-value-stores/x/keys"),
        "https://api.apify.com:x/v2/key-value-stores/x/keys",
    ],
)
def test_what_is_no_source_is_told_all_forms(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_source(text)
    assert refused.value.exit_code == ExitCode.INVALID_SOURCE
    assert str(refused.value) == f"{shown(text)!r} is not a store: give {FORMS}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("actor:joe/a?status=DONE", "status=DONE: a run's status is one of READY, RUNNING, SUCCEEDED"),
        ("task:joe/a?origin=a%20b", "origin=a%20b: a run's origin is a word"),
        ("actor:joe/a?stat=READY", "stat: the last run is filtered by ?status= and ?origin= only"),
    ],
)
def test_a_filter_that_makes_no_sense(text: str, told: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_source(text)
    assert refused.value.exit_code == ExitCode.INVALID_SOURCE
    assert str(refused.value).startswith(told)


def test_a_signature_is_shown_nowhere() -> None:
    text = f"{URL}?signature=hush"
    assert shown(text) == URL
    assert is_secret(text)
    assert not is_secret(URL)
    assert not is_secret("actor:joe/scraper?status=SUCCEEDED")
    assert "hush" not in repr(parse_source(text))
    for wrong in ("https://host/x?signature=hush", "https://me:hush@host/x", "ftp://host/keys?token=hush"):
        with pytest.raises(CommandError) as refused:
            parse_source(wrong)
        assert "hush" not in str(refused.value)
