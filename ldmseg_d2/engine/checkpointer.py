"""Checkpoints that leave frozen networks out, load strictly, and survive a kill while saving."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ldmseg_d2.modeling.weights import (
    load_into,
    load_weights,
    read_checkpoint,
    select_weights,
    without_prefixes,
)


class LDMSegCheckpointer(DetectionCheckpointer):
    """Saves and loads a model together with whatever else training needs.

    A checkpoint ``NAME.pth`` is a dict of plain values and tensors (``weights_only=True`` reads
    it): ``model``, ``iteration``, and one key for each of the checkpointables.

    A model with the attribute ``frozen_prefixes`` (a tuple of state-dict prefixes, possibly empty)
    is saved without the keys under them, and every other key must fit when it is loaded. Models
    without it, such as Detectron2's own, load as Detectron2 loads them: loosely.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        before_save: Callable[[], None] | None = None,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            save_dir: a local folder.
            save_to_disk: None: in the main process only.
            before_save: called by :meth:`save` in every process, also those that do not write.
            checkpointables: objects with ``state_dict`` and ``load_state_dict``. Where there are
                none, only weights are loaded: the averaged ones if the file has them.
        """
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.is_strict = hasattr(self.model, "frozen_prefixes")
        self.frozen_prefixes = tuple(getattr(self.model, "frozen_prefixes", ()))
        self.before_save = before_save

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``NAME.pth`` with `kwargs` in it, then name it in the file ``last_checkpoint``.

        Both are complete or as they were before, whenever the process is killed. All processes
        must call this; the main one writes.
        """
        if not self.save_dir:
            return
        if self.before_save is not None:
            self.before_save()
        if not self.save_to_disk:
            return
        data = {"model": without_prefixes(self.model.state_dict(), self.frozen_prefixes)}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()} | kwargs
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        os.makedirs(self.save_dir, exist_ok=True)
        with open(f"{path}.tmp", "wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in ``last_checkpoint``, in one step."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        Path(f"{path}.tmp").write_text(last_filename_basename, encoding="utf-8")
        os.replace(f"{path}.tmp", path)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the newest checkpoint in ``save_dir`` that can be read, or load weights.

        A checkpoint that is missing or cut short, such as after a full disk, is passed over with a
        warning: the one before it is taken.

        Args:
            path: of weights, where there is nothing to resume from; frozen networks, which are in
                no checkpoint, come from it again.
            resume: look for a checkpoint in ``save_dir``.

        Raises:
            FileNotFoundError, ValueError: as :meth:`load`; or no checkpoint can be read.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        for candidate in self._list_checkpoints():
            try:
                checkpoint = read_checkpoint(candidate)
            except (FileNotFoundError, ValueError) as error:
                self.logger.warning("Passing over a checkpoint that is not whole: %s", error)
                continue
            self.logger.info("Resuming from %s ...", candidate)
            rest = self._restore(checkpoint, candidate, list(self.checkpointables))
            self._load_frozen_parts(path)
            return rest
        raise ValueError(
            f"None of the checkpoints in {self.save_dir} can be read. Delete them, or train in "
            "another OUTPUT_DIR."
        )

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights, and the state of the checkpointables; returns what else is in the file.

        Args:
            path: ``.pth`` or ``.safetensors``, local or whatever Detectron2's PathManager fetches;
                models without ``frozen_prefixes`` also take Detectron2's ``.pkl``. Empty: nothing
                is loaded.
            checkpointables: names of those to load; None: all.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or keys are missing, unknown or of another shape.
        """
        if not path:
            self.logger.info("No weights to load: the model keeps its initial ones.")
            return {}
        names = list(self.checkpointables) if checkpointables is None else checkpointables
        if self.is_strict or path.endswith((".pth", ".safetensors")):
            self.logger.info("Loading %s ...", path)
            return self._restore(read_checkpoint(path), path, names)
        # Detectron2 understands "file.pkl?matching_heuristics=True".
        if not os.path.isfile(self.path_manager.get_local_path(path.partition("?")[0])):
            raise FileNotFoundError(f"No weights at {path!r}: there is no such file.")
        return super().load(path, names)

    def _list_checkpoints(self) -> list[str]:
        """What ``last_checkpoint`` names, then the others from the newest on, whole or not."""
        named = self.get_checkpoint_file()
        others = Path(self.save_dir).glob("model_*.pth")
        others = sorted(others, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
        return [
            *([named] if os.path.basename(named) else []),
            *(str(other) for other in others if str(other) != named),
        ]

    def _restore(self, checkpoint: dict[str, Any], path: str, names: list[str]) -> dict[str, Any]:
        """Take what :func:`read_checkpoint` found at `path`; returns what is left of it."""
        state = select_weights(checkpoint, source=path, prefer_ema=not names)
        if self.is_strict:
            load_into(self.model, state, source=path, ignore_missing=self.frozen_prefixes)
        else:
            self._log_incompatible_keys(self._load_model({"model": dict(state)}))
        for name in names:
            if name in checkpoint:
                self.checkpointables[name].load_state_dict(checkpoint[name])
            else:
                self.logger.warning("%s has no %r: it starts anew.", path, name)
        return {k: v for k, v in checkpoint.items() if k != "model" and k not in names}

    def _load_frozen_parts(self, path: str) -> None:
        """Take the frozen networks that `path` has from there, and nothing else."""
        if not path or not self.frozen_prefixes:
            return
        state = load_weights(path)
        frozen = {key: state[key] for key in state if key.startswith(self.frozen_prefixes)}
        if frozen:
            self.logger.info("Loading the frozen networks from %s ...", path)
            load_into(self.model, {**self.model.state_dict(), **frozen}, source=path)

    def _torch_load(self, f: str) -> dict[str, Any]:
        """Read safely; called by Detectron2."""
        return read_checkpoint(f)
