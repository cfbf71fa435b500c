"""``/metrics``: for administrators on the one port, for anybody who can reach it on a port of its own."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.errors import Forbidden
from appliance.live.matching.access import Access
from appliance.ops.metrics import Metrics
from appliance.web.api.caller import principal_of


class MetricsPage:
    """Answers ``/metrics``."""

    def __init__(self, metrics: Metrics, access: Access) -> None:
        self._metrics = metrics
        self._access = access

    async def for_administrators(self, request: Request) -> Response:
        """Answer who brings an administrator's token. Raises ``Unauthorized`` and ``Forbidden``."""
        reader = await self._access.reader(await principal_of(request, self._access))
        if not reader.principal.admin:
            raise Forbidden("the metrics are for administrators; or set metrics_listen and ask there")
        return await self.open(request)

    async def open(self, request: Request) -> Response:
        """Answer anybody."""
        text, content_type = await self._metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    def application(self) -> Starlette:
        """Make the application for a port of its own: the metrics, and nothing else."""
        return Starlette(routes=[Route("/metrics", self.open)])
