"""Inference: one sampling run for all asked tasks, with given parts and with several draws."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..diffusion import initial_noise, sample_latents
from .batching import image_generator, spread_indices
from .draws import join_draws, majority_class, repeat_draws
from .inpainting import KnownBatch, encode_known_parts
from .tasks import InstanceTask
from .tasks.layout import Batch, Block
from .tasks.outputs import decode_tasks, with_instances

if TYPE_CHECKING:
    from .ldmseg import LDMSeg


@torch.no_grad()
def generate(model: "LDMSeg", batched_inputs: list[dict], condition: Tensor) -> list[dict]:
    """The outputs of a batch, see ``LDMSeg.forward``.

    Args:
        model: in eval mode.
        batched_inputs: the input dicts.
        condition: (B, C', h, w) of their photos.
    """
    if model.noise_options.regression and model.num_inference_steps != 1:
        raise ValueError(
            "a model of MODEL.LDMSEG.DIFFUSION.REGRESSION gives its result in one step: set "
            f"num_inference_steps to 1, it is {model.num_inference_steps}"
        )
    # 1. Every draw of a picture is an input of its own.
    pictures, entries = repeat_draws(batched_inputs)
    condition = condition[pictures]

    # 2. Rows of latents for the asked tasks, and noise that depends on nothing but the row.
    batch = model.layout.for_inference(entries)
    told = torch.tensor(batch.tasks, device=model.device)
    row_condition = condition[batch.images]
    generators = [
        image_generator(entry.get("seed", model.seed), key, model.device)
        for entry, key in model.layout.noise_keys(entries, batch)
    ]
    noise = model.noise_options.x_T(initial_noise(model.latent_shape, generators))

    # 3. What is given of the segments, as clean latents.
    given = GivenSegments(
        model,
        batch,
        entries,
        generators=generators,
        noise=noise,
        predict=lambda: model.predict_from_noise(noise, row_condition, told),
    )

    # 4. Sampling.
    wanted = max(int(entry.get("return_steps", 0)) for entry in entries)
    shown = spread_indices(model.num_inference_steps, wanted)
    steps: list[tuple[int, Tensor]] = []

    def keep_step(i: int, t: int, x0: Tensor) -> None:
        if i in shown:
            steps.append((t, x0))

    x0 = sample_latents(
        lambda x_t, t, previous: model.denoiser(
            x_t, t, row_condition, previous, told, given.cells, given.draft
        ),
        noise,
        scheduler=model.scheduler,
        num_inference_steps=model.num_inference_steps,
        self_conditioning=model.denoiser.self_conditioning,
        generators=generators,
        callback=keep_step,
        **given.sampler_arguments,
    )

    # 5. Latents to maps, given pixels and ids put back, classes, draws joined.
    decoded = decode_tasks(model.tasks, batch, x0, given.entries)
    for one, entry, features in zip(decoded, given.entries, condition, strict=True):
        if model.supervision is not None and "sem_seg" in one:
            one["sem_seg"] = model.supervision.mix(
                one["sem_seg"], features, entry, side=model.image_size
            )
    outputs = [
        given.finish(i, one, lambda one, i=i: model.classifier(one, given.entries[i], condition[i]))
        for i, one in enumerate(decoded)
    ]
    segments = [b for b in batch.blocks if isinstance(model.tasks[b.task], InstanceTask)]
    for t, intermediate in steps:
        only_segments = batch._replace(blocks=segments)
        of_step = decode_tasks(model.tasks, only_segments, intermediate, given.entries)
        for i, (output, one) in enumerate(zip(outputs, of_step, strict=True)):
            if entries[i].get("return_steps", 0) and one:
                output.setdefault("steps", []).append({"timestep": t, **given.paste(i, one)})
    return join_draws(batched_inputs, pictures, outputs, min_area=given.min_area)


class GivenSegments:
    """What is given of the segments in a batch (inpainting); perhaps nothing."""

    def __init__(
        self,
        model: "LDMSeg",
        batch: Batch,
        entries: Sequence[dict],
        *,
        generators: Sequence[torch.Generator],
        noise: Tensor,
        predict: Callable[[], Tensor],
    ) -> None:
        """
        Args:
            model: whose tasks have one for segments, else nothing can be given.
            batch: its rows and blocks.
            entries: the input dict of each draw of a picture.
            generators: of the rows.
            noise: (R, C', h, w) of the rows.
            predict: gives (R, C', h, w), the network's x0 from that noise.

        Raises:
            ValueError: ``known_ids`` that make no sense, or for which no task is asked.
        """
        self.entries = list(entries)
        self.cells: Tensor | None = None
        self.draft: Tensor | None = None
        self.sampler_arguments: dict[str, Any] = {}
        self._known: KnownBatch | None = None
        self._position: dict[int, int] = {}
        self.min_area = max(
            (t.postprocess["count_threshold"] for t in model.tasks if isinstance(t, InstanceTask)),
            default=0,
        )
        self._classes = model.classifier.classes
        block = next(
            (b for b in batch.blocks if isinstance(model.tasks[b.task], InstanceTask)), None
        )
        self._check_asked(batch, block)
        if block is None:
            return
        task = model.tasks[block.task]
        images = [batch.images[row] for row in block.rows]
        known = encode_known_parts(
            [entries[i] for i in images],
            autoencoder=task.autoencoder,
            image_size=task.image_size,
            id_assignment=task.id_assignment,
            position_edges=task.position_edges,
            position_weight=task.position_weight,
            generators=[generators[row] for row in block.rows],
            predict=lambda: block.of(predict()),
            cell_rule=model.inpainting.cell_rule,
        )
        if known is None:
            return
        self._known = known
        self._position = {image: position for position, image in enumerate(images)}
        self.cells = torch.zeros_like(noise[:, :1], dtype=torch.bool)
        self.cells[block.rows] = known.cells
        self.draft = noise.new_zeros(len(noise), *known.latents.shape[1:])
        self.draft[block.rows] = known.drafts().to(noise.dtype)
        latents = torch.zeros_like(noise)
        latents[block.rows, block.channels] = known.latents.to(noise.dtype)
        mask = torch.zeros_like(noise, dtype=torch.bool)
        mask[block.rows, block.channels] = known.cells.expand_as(known.latents)
        self.sampler_arguments = {
            "known_latents": latents,
            "known_mask": mask,
            "inpainting": model.inpainting.method,
            "repaint_jump_length": model.inpainting.jump_length,
            "repaint_resamples": model.inpainting.resamples,
        }
        for image, position in self._position.items():
            if known.pictures[position] is not None:
                self.entries[image] = {
                    **entries[image],
                    "keep_ids": known.keep_ids(position),
                    "keep_prior": known.keep_prior(position, model.inpainting),
                    "given": known.pictures[position].parts.ids,
                }

    def paste(self, image: int, decoded: dict[str, Any]) -> dict[str, Any]:
        """Put the given pixels and ids into one picture's decoded segments, if it has any given."""
        position = self._given_position(image)
        if position is None:
            return decoded
        panoptic_seg = self._known.finish(position, decoded["panoptic_seg"], min_area=self.min_area)
        return {**decoded, "panoptic_seg": panoptic_seg}

    def finish(
        self, image: int, decoded: dict[str, Any], classify: Callable[[dict], dict]
    ) -> dict[str, Any]:
        """Put the given pixels, ids and classes into one picture's output.

        Args:
            image: index of the draw.
            decoded: by output key what the tasks gave.
            classify: gives the segments their classes, which may merge or drop some.
        """
        named = self.paste(image, decoded)
        output = classify(named)
        position = self._given_position(image)
        if position is None or "instances" not in output:  # nothing is given, or no classes
            return output
        panoptic_seg = self._known.finish(
            position,
            output["panoptic_seg"],
            min_area=self.min_area,
            is_thing=self._classes.is_thing,
            classify=majority_class(output.get("sem_seg")),
            before=named["panoptic_seg"][0],
        )
        # Things may have changed with what was put back.
        return {**output, **with_instances(panoptic_seg)}

    def _given_position(self, image: int) -> int | None:
        """Where a picture is in what is known; None where nothing of it is given."""
        position = self._position.get(image)
        if position is None or self._known.pictures[position] is None:
            return None
        return position

    def _check_asked(self, batch: Batch, block: Block | None) -> None:
        rows = [] if block is None else block.rows
        served = {batch.images[row] for row in rows}
        for image, entry in enumerate(self.entries):
            if image not in served and entry.get("known_ids") is not None:
                raise ValueError(
                    f"{entry.get('file_name', 'image')}: 'known_ids' are completed by the task "
                    "'instance', which this model does not have or which the input's 'tasks' leave "
                    "out"
                )
