"""The training configuration inside a published checkpoint, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from reference_model.checkpoints.pickles import Placeholder
from reference_model.checkpoints.tensors import CheckpointError

__all__ = ["plain_config", "read_yaml"]

_MAX_NODES = 100_000
_MAX_DEPTH = 64
_CONTAINERS: Final = ("DictConfig", "ListConfig", "TupleConfig")
_CONTENT: Final = "_content"
_UNREADABLE: Final = object()


class _Walk:
    """Turns nodes into plain values; bounded, since nodes may be shared or contain themselves."""

    def __init__(self) -> None:
        self._nodes = 0

    def plain(self, value: Any, depth: int = 0) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise CheckpointError("config_dict: too large or too deeply nested; refused")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Mapping):
            pairs = ((str(key), self.plain(item, depth + 1)) for key, item in value.items())
            return {key: item for key, item in pairs if item is not _UNREADABLE}
        if isinstance(value, list | tuple):
            return [item for each in value if (item := self.plain(each, depth + 1)) is not _UNREADABLE]
        if isinstance(value, Placeholder):
            return self._node(value, depth)
        return _UNREADABLE

    def _node(self, node: Placeholder, depth: int) -> Any:
        _, _, name = node.path.rpartition(".")
        if not node.path.startswith("omegaconf."):
            # Paths of the training machine and the like: nothing that a model depends on.
            return _UNREADABLE
        state = node.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], Mapping | None):
            # The state of a class with slots: (__dict__, slots).
            state = {**(state[0] or {}), **(state[1] or {})}
        if not isinstance(state, Mapping):
            return _UNREADABLE
        content = state.get(_CONTENT) if name in _CONTAINERS or name == "UnionNode" else state.get("_val")
        return self.plain(content, depth + 1)


def plain_config(value: Any) -> dict[str, Any]:
    """Plain values of a training configuration.

    Args:
        value: A plain dict, a `Placeholder` of OmegaConf's `DictConfig`, or the attributes of one (a dict with
            ``_content``, as the published training script saves it). Interpolations stay text.

    Returns:
        The configuration. Values that are no configuration (paths, tensors) are left out.

    Raises:
        CheckpointError: If it is something else, too large or nested too deeply.
    """
    if isinstance(value, Mapping) and _CONTENT in value:
        value = value[_CONTENT]
    plain = _Walk().plain(value)
    if not isinstance(plain, dict):
        raise CheckpointError(
            "config_dict: is not a training configuration; give one with --config FILE.yaml"
        )
    return plain


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration from a published YAML file.

    Raises:
        CheckpointError: If the file cannot be read or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not a configuration; give one of the published YAML files")
    plain: dict[str, Any] = _Walk().plain(content)
    return plain
