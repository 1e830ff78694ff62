"""What the embedded server is compared with: bare Starlette routes that return or store 4 KiB."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

CONTENT = bytes(4096)


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    memory: dict[str, bytes] = {}

    async def get(_request: Request) -> Response:
        return Response(CONTENT)

    async def put_in_memory(request: Request) -> Response:
        memory[request.path_params["key"]] = await request.body()
        return Response(status_code=201)

    async def put_in_file(request: Request) -> Response:
        content = await request.body()
        (folder / request.path_params["key"]).write_bytes(content)
        return Response(status_code=201)

    routes = [
        Route("/get/{key}", get),
        Route("/memory/{key}", put_in_memory, methods=["PUT"]),
        Route("/file/{key}", put_in_file, methods=["PUT"]),
    ]
    uvicorn.run(
        Starlette(routes=routes),
        port=port,
        http="h11",
        loop="asyncio",
        access_log=False,
        log_level="critical",
    )


if __name__ == "__main__":
    main()
