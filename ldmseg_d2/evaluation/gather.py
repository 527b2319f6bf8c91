"""What evaluators do alike when images are shared out among processes."""

from typing import Any

from detectron2.utils import comm


def gather_by_image(kept: list[dict[str, Any]]) -> dict[Any, dict[str, Any]] | None:
    """Bring together the dicts that all processes have kept; every process must call it.

    On the main process they come by ``image_id``, else None. Of an image that was processed twice
    (samplers that pad the last batch hand one out again) one is kept.
    """
    comm.synchronize()
    gathered = comm.gather(kept)
    if not comm.is_main_process():
        return None
    return {entry["image_id"]: entry for entries in gathered for entry in entries}
