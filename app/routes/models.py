"""The weights that jobs can ask for by name."""

from app.database import clock
from app.queries import live_workers
from app.routes.router import Router
from app.schemas import ModelBody, ModelList
from app.service import ServiceDep
from app.weights import list_weights

router = Router(tags=["models"])


@router.get("/models")
def get_models(service: ServiceDep) -> ModelList:
    """Every set of weights with its card, and whether a live worker holds it in memory."""
    with service.database.read() as session:
        loaded = {name for worker in live_workers(session, clock(session)) for name in worker.models}
    items = [
        ModelBody(
            name=weights.name,
            sha256=weights.sha256,
            created=weights.created,
            latent_channels=weights.latent_channels,
            bytes=weights.total_bytes,
            loaded=weights.name in loaded,
            card=weights.card,
        )
        for weights in list_weights(service.settings).values()
    ]
    return ModelList(items=items, next=None)
