"""From the given part of a mask to known latents, and from the decoded result back to it.

The three places where inpainting touches a model's inference: before sampling
(:func:`encode_known_parts`), in it (:meth:`KnownBatch.sampler_arguments`), and after decoding
(:meth:`KnownBatch.finish`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..config import MATCHED_ASSIGNMENTS
from ..diffusion import INPAINTING_METHODS
from ..inpainting import given_ids_by_overlap, given_ids_by_votes, given_log_prior, paste_known
from ..inpainting.given_parts import (
    CELL_RULES,
    KnownParts,
    check_known_parts,
    fill_unknown,
    given_id_table,
    known_cells,
    resize_nearest,
)
from ..modeling.mask_autoencoder import MaskAutoencoder
from .batching import pad_to_square


class InpaintingOptions(NamedTuple):
    """How given parts enter the sampler, see ``MODEL.LDMSEG.SAMPLER``."""

    method: str = "fixed"
    jump_length: int = 5
    resamples: int = 3
    cell_rule: str = "all"
    given_weight: float = 0.0
    given_reach: float = 256.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "InpaintingOptions":
        """
        Raises:
            ValueError: an unknown name, or a number out of range.
        """
        sampler = cfg.MODEL.LDMSEG.SAMPLER
        for key, allowed in (("INPAINTING", INPAINTING_METHODS), ("KNOWN_CELLS", CELL_RULES)):
            if sampler[key] not in allowed:
                raise ValueError(
                    f"MODEL.LDMSEG.SAMPLER.{key} is {sampler[key]!r}; allowed: {', '.join(allowed)}"
                )
        if sampler.GIVEN_WEIGHT < 0 or sampler.GIVEN_REACH <= 0:
            raise ValueError(
                "MODEL.LDMSEG.SAMPLER.GIVEN_WEIGHT must be at least 0 (0 is off) and GIVEN_REACH "
                f"above 0 pixels, got {sampler.GIVEN_WEIGHT} and {sampler.GIVEN_REACH}"
            )
        return cls(
            method=sampler.INPAINTING,
            jump_length=sampler.REPAINT_JUMP_LENGTH,
            resamples=sampler.REPAINT_RESAMPLES,
            cell_rule=sampler.KNOWN_CELLS,
            given_weight=sampler.GIVEN_WEIGHT,
            given_reach=sampler.GIVEN_REACH,
        )


class KnownPicture(NamedTuple):
    """What is given of one picture."""

    parts: KnownParts  # at the size of the result
    photo: Tensor  # (3, h, w) uint8, at the networks' size and without padding
    codes: Tensor  # (K,) int64: the id under which the model knows each of parts.labels()
    classes: Mapping[int, int]  # given id to contiguous class, where the user says it


class KnownBatch(NamedTuple):
    """What is given of a batch."""

    latents: Tensor  # (B, C, h, w) normalised: the given ids, continued to the nearest pixels
    cells: Tensor  # (B, 1, h, w) bool
    pictures: list[KnownPicture | None]  # None where nothing is given

    def sampler_arguments(self) -> dict[str, Tensor]:
        """Of ``sample_latents``."""
        return {"known_latents": self.latents, "known_mask": self.cells}

    def drafts(self) -> Tensor:
        """(B, C, h, w) latents for the denoiser's draft: 0 where nothing is given."""
        given = [picture is not None for picture in self.pictures]
        return self.latents * torch.tensor(given, device=self.latents.device).view(-1, 1, 1, 1)

    def keep_ids(self, index: int) -> list[int]:
        """Channels of the given segments, which no threshold may delete (``keep_ids``)."""
        picture = self.pictures[index]
        return [] if picture is None else picture.codes.tolist()

    def keep_prior(self, index: int, options: InpaintingOptions) -> Tensor | None:
        """Log prior of these channels, of void and of all others, see :func:`given_log_prior`."""
        picture = self.pictures[index]
        if picture is None or options.given_weight == 0:
            return None
        prior = given_log_prior(picture.parts, picture.photo, reach=options.given_reach)
        return options.given_weight * prior

    def finish(
        self,
        index: int,
        panoptic_seg: tuple[Tensor, list[dict]],
        *,
        min_area: int,
        is_thing: Sequence[bool] | None = None,
        classify: Callable[[Tensor], int] | None = None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, list[dict]]:
        """Put the given pixels, ids and classes into a result.

        Args:
            index: of the picture in the batch.
            panoptic_seg: what ``logits_to_panoptic`` gives: ids are channels + 1.
            min_area: new segments of which less is left become void, pixels.
            is_thing, classify: see :func:`paste_known`.
            before: for a second call, after a step that merged or renamed segments: the ids of the
                first call's result, by which given ones are recognised.
        """
        picture = self.pictures[index]
        if picture is None:
            return panoptic_seg
        if before is None:
            pairs = zip(picture.codes.tolist(), picture.parts.labels().tolist(), strict=True)
            named = {code + 1: given for code, given in pairs}
            given_ids = given_ids_by_votes(panoptic_seg[0], picture.parts, named)
        else:
            given_ids = given_ids_by_overlap(panoptic_seg[0], before, picture.parts)
        return paste_known(
            *panoptic_seg,
            picture.parts,
            given_ids=given_ids,
            min_area=min_area,
            known_classes=picture.classes,
            is_thing=is_thing,
            classify=classify,
        )


@torch.no_grad()
def encode_known_parts(
    batched_inputs: Sequence[dict],
    *,
    autoencoder: MaskAutoencoder,
    image_size: int,
    id_assignment: str,
    position_edges: tuple[Sequence[float], Sequence[float]],
    generators: Sequence[torch.Generator],
    predict: Callable[[], Tensor],
    cell_rule: str = "all",
    position_weight: float = 0.0,
) -> KnownBatch | None:
    """Latents of what is given.

    The given segments are coded as the model's own id assignment would code them. Around the given
    pixels, which the autoencoder's convolutions see as well, the nearest given id continues: void
    would be something that nobody has said.

    Args:
        batched_inputs: dicts with ``image`` (3, h, w), whose size says what of the square is not
            padding; ``height``, ``width``; and, where something is given, ``known_ids`` and
            perhaps ``known_mask`` (see :func:`check_known_parts`) and ``known_classes``, a dict of
            given id to contiguous class.
        autoencoder: encodes.
        image_size: side S of the square that the networks see.
        id_assignment: ``MODEL.LDMSEG.ID_ASSIGNMENT``.
        position_edges: bins of y and of x, for "positional" and "matched_positional".
        generators: one per sample, from which the noise has been drawn already; "random" ids are
            drawn after it.
        predict: x0 (B, C, h, w) that the network predicts from the samples' noise, normalised;
            called once, for "matched" and "matched_positional" ids alone.
        cell_rule: see :func:`known_cells`.
        position_weight: of "matched_positional".

    Returns:
        None where nothing is given in the whole batch.

    Raises:
        ValueError: see :func:`check_known_parts`; classes of ids that are not given.
    """
    max_segments = autoencoder.num_ids - 1
    given = [_check(entry, max_segments) for entry in batched_inputs]
    if not any(given):
        return None
    decoded = None
    if id_assignment in MATCHED_ASSIGNMENTS:
        decoded = autoencoder.decode(autoencoder.denormalize(predict()))
    factor = autoencoder.downsample_factor
    maps, cells, pictures = [], [], []
    device = generators[0].device
    rows = zip(batched_inputs, given, generators, strict=True)
    for index, (entry, parts, generator) in enumerate(rows):
        if parts is None:
            maps.append(torch.zeros(image_size, image_size, dtype=torch.int64, device=device))
            cells.append(torch.zeros((image_size // factor,) * 2, dtype=torch.bool, device=device))
            pictures.append(None)
            continue
        parts = KnownParts(parts.ids.to(device), parts.mask.to(device))
        labels = parts.labels()
        content = tuple(entry["image"].shape[-2:])
        small = KnownParts(*(resize_nearest(one, content) for one in parts))
        numbers = torch.where(small.ids == 0, 0, torch.searchsorted(labels, small.ids) + 1)
        table = given_id_table(
            pad_to_square(numbers, image_size),
            len(labels),
            method=id_assignment,
            num_bits=autoencoder.num_bits,
            generator=generator,
            y_edges=position_edges[0],
            x_edges=position_edges[1],
            predicted=None if decoded is None else decoded[index],
            expand=autoencoder.id_logits,
            position_weight=position_weight,
        ).to(device)
        codes = table[fill_unknown(numbers, small.mask)]
        maps.append(pad_to_square(codes, image_size))
        cells.append(
            known_cells(small.mask, image_size=image_size, downsample_factor=factor, rule=cell_rule)
        )
        classes = entry.get("known_classes") or {}
        pictures.append(KnownPicture(parts, entry["image"], table[1:], classes))
    latents = autoencoder.normalize(autoencoder.encode(torch.stack(maps)).mean)
    return KnownBatch(latents, torch.stack(cells).unsqueeze(1), pictures)


def _check(entry: dict, max_segments: int) -> KnownParts | None:
    name = str(entry.get("file_name", "image"))
    parts = check_known_parts(
        entry.get("known_ids"),
        entry.get("known_mask"),
        size=(entry["height"], entry["width"]),
        max_segments=max_segments,
        name=name,
    )
    known = set() if parts is None else set(parts.labels().tolist())
    strangers = sorted(set(entry.get("known_classes") or {}) - known)
    if strangers:
        raise ValueError(
            f"{name}: 'known_classes' has ids {strangers[:10]}, which 'known_ids' does not give"
        )
    return parts
