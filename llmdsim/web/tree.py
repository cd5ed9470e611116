"""
The routes of one rank, put together: every room of this package declares its own.
"""

from __future__ import annotations

from llmdsim.sim.rank import Rank
from llmdsim.web import (
    admin,
    cluster,
    controls,
    dev,
    direct,
    generation,
    guards,
    pooling,
    probes,
    responses,
    sagemaker,
    tokens,
)
from llmdsim.web.app import App
from llmdsim.web.traffic import Traffic

# Guards are asked in this order: what generation sets is on the answers of all others.
ROOMS = (generation, responses, tokens, pooling, direct, admin, probes, dev, cluster, controls, sagemaker, guards)


def make_app(rank: Rank) -> App:
    """One rank's app, counting its traffic in the rank's registry."""
    app = App(seconds=rank.clock.seconds, served=Traffic(rank.meters.registry, rank.wall).served)
    for room in ROOMS:
        room.routes(app, rank)
    return app
