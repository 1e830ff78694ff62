"""The proxies that the environment names: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, and NO_PROXY for what needs none."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx


class Proxies:
    """Which proxy leads to which host."""

    def __init__(self) -> None:
        """Read the environment. Raises ValueError, ImportError, OSError for a proxy that cannot be used."""
        named = getproxies()
        self._by_scheme = {
            scheme: _proxy(named[scheme]) for scheme in ("http", "https", "all") if named.get(scheme)
        }

    def leading_to(self, scheme: str, host: str) -> httpcore.Proxy | None:
        """Give the proxy to ask; None where the host is asked directly."""
        proxy = self._by_scheme.get(scheme) or self._by_scheme.get("all")
        return None if proxy is None or proxy_bypass(host) else proxy


def _proxy(named: str) -> httpcore.Proxy:
    try:
        proxy = httpx.Proxy(named if "://" in named else f"http://{named}")
    except httpx.InvalidURL as error:
        raise ValueError("no URL") from error
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ImportError("a SOCKS proxy needs the package socksio")
    url = httpcore.URL(
        scheme=proxy.url.raw_scheme,
        host=proxy.url.raw_host,
        port=proxy.url.port,
        target=proxy.url.raw_path,
    )
    return httpcore.Proxy(
        url=url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=proxy.ssl_context
    )
