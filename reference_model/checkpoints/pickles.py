"""A pickle reader that cannot run anything.

Pickle is a small stack machine whose programs may import and call what they like. This reader interprets the
few instructions that data needs and has no instruction that imports or calls: a global is only a name, and what
"calling" one means is written out here for every name that is known. All other names and instructions are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reference_model.checkpoints.tensors import CheckpointError

__all__ = ["GlobalName", "PickleMachine", "Placeholder"]

_MAX_OPCODES = 5_000_000
_BUILTINS = (
    "dict",
    "list",
    "tuple",
    "set",
    "int",
    "long",
    "float",
    "bool",
    "str",
    "unicode",
    "bytes",
    "object",
)
_OMEGACONF = {
    "base": ("ContainerMetadata", "Metadata", "UnionNode"),
    "dictconfig": ("DictConfig",),
    "listconfig": ("ListConfig",),
    "tupleconfig": ("TupleConfig",),
    "nodes": (
        *("AnyNode", "BooleanNode", "BytesNode", "FloatNode", "IntegerNode", "InterpolationResultNode"),
        *("LiteralNode", "NoneNode", "PathNode", "StringNode", "ValueNode"),
    ),
}
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

_OBJECTS: Final = frozenset(
    f"omegaconf.{module}.{name}" for module, names in _OMEGACONF.items() for name in names
)
"""Classes whose instances become a `Placeholder`."""

_INERT: Final = frozenset(
    {
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
        *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
        *(f"pathlib.{name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
        *(f"torch.{name}Storage" for name in _STORAGES),
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        "numpy.dtype",
        "torch.Size",
        "torch.device",
        "_codecs.encode",
    }
)
"""Names that may be mentioned or "called"; a call gives a `Placeholder` that only remembers its arguments."""

_MAPPINGS: Final = frozenset({"collections.OrderedDict", "collections.defaultdict"})
_TENSORS: Final = frozenset({"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"})
_MARK: Final = object()


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A name that a pickle mentions; nothing is imported.

    Attributes:
        path: Module and name, joined by a dot.
    """

    path: str


class Placeholder:
    """What stands for an object of a known class: its class name, arguments and state, and no behaviour."""

    __slots__ = ("arguments", "path", "state")

    def __init__(self, path: str, arguments: tuple[Any, ...]) -> None:
        self.path = path
        self.arguments = arguments
        self.state: Any = None


class PickleMachine:
    """Reads one pickle.

    Args:
        storage: Called with the parts of a persistent id; gives what stands for a storage.
        tensor: Called with storage, offset, shape and stride; gives what stands for a tensor.
        classes: Packages (each ending in a dot) whose classes may have instances, besides those of OmegaConf. An
            instance becomes a `Placeholder`; nothing of the packages is imported, and calls with arguments are
            refused.
    """

    def __init__(
        self,
        storage: Callable[[Sequence[Any]], Any],
        tensor: Callable[[Any, Any, Any, Any], Any],
        classes: tuple[str, ...] = (),
    ) -> None:
        self._storage = storage
        self._tensor = tensor
        self._classes = classes
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        """Reads a pickle of protocol 2 or later.

        Args:
            content: The pickle.

        Returns:
            Plain values, `Placeholder`, `GlobalName`, and what `storage` and `tensor` gave.

        Raises:
            CheckpointError: If it mentions an unknown global, uses an instruction that data does not need, or is
                damaged.
        """
        self._stack, self._memo = [], {}
        count = 0
        try:
            for opcode, argument, _ in pickletools.genops(content):
                count += 1
                if count > _MAX_OPCODES:
                    raise CheckpointError(f"the pickle has more than {_MAX_OPCODES} instructions; refused")
                if opcode.name == "STOP":
                    (result,) = self._stack
                    return result
                self._step(opcode.name, argument)
        except CheckpointError:
            raise
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise CheckpointError(f"the pickle inside is damaged ({error})") from None
        raise CheckpointError("the pickle inside is damaged (no end)")

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = self._stack[-size:]
            if len(items) < size or any(item is _MARK for item in items):
                raise CheckpointError("the pickle inside is damaged (stack underflow)")
            del self._stack[-size:]
            self._stack.append(tuple(items))
        elif name not in _IGNORED:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise CheckpointError(
                    f"the pickle uses the instruction {name}, which data does not need; refused"
                )
            handler(self, argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise CheckpointError("the pickle inside is damaged (stack underflow)")
        return value

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                items = self._stack[position + 1 :]
                del self._stack[position:]
                return items
        raise CheckpointError("the pickle inside is damaged (no mark)")

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise CheckpointError("the pickle appends to something that is not a list; refused")
        self._stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _setitems(self, _: Any) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise CheckpointError("the pickle sets items of something that is not a dict; refused")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys have no place in a checkpoint, and hashing nested ones could take for ever.
            if not isinstance(key, str | int | float | bytes | None):
                raise CheckpointError(f"the pickle has a dict key of type {type(key).__name__}; refused")
            target[key] = value

    def _global(self, argument: str) -> None:
        self._stack.append(self._known_name(argument.replace(" ", ".", 1)))

    def _is_class(self, path: str) -> bool:
        return path in _OBJECTS or path in _MAPPINGS or path.startswith(self._classes)

    def _known_name(self, path: str) -> GlobalName:
        if not (self._is_class(path) or path in _INERT or path in _TENSORS):
            raise CheckpointError(
                f"the pickle asks for {path!r}, which has no place in a checkpoint and could run code; "
                "nothing was loaded. Give a file of tensors alone (.safetensors)"
            )
        return GlobalName(path)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("the pickle names a global by something that is not text; refused")
        self._stack.append(self._known_name(f"{module}.{name}"))

    def _persistent(self, _: Any) -> None:
        parts = self._pop()
        if type(parts) is not tuple:
            raise CheckpointError("the pickle has a persistent id of an unknown kind; refused")
        self._stack.append(self._storage(parts))

    def _reduce(self, _: Any) -> None:
        arguments, target = self._pop(), self._pop()
        if not isinstance(target, GlobalName) or type(arguments) is not tuple:
            raise CheckpointError("the pickle calls something that is not a known name; refused")
        self._stack.append(self._meaning(target.path, arguments))

    def _meaning(self, path: str, arguments: tuple[Any, ...]) -> Any:
        """What a call stands for; nothing is called."""
        if path == "collections.OrderedDict" and arguments:
            pairs = arguments[0]
            self._stack.append({})
            self._update([item for pair in pairs for item in (pair[0], pair[1])])
            return self._stack.pop()
        if path in _MAPPINGS:
            return {}
        if path == "torch._utils._rebuild_parameter":
            return arguments[0]
        if path == "torch._utils._rebuild_tensor_v2":
            return self._tensor(*arguments[:4])
        if arguments and path not in _INERT and path not in _OBJECTS:
            raise CheckpointError(f"the pickle calls {path} with arguments, which no object needs; refused")
        return Placeholder(path, arguments)

    def _newobj(self, _: Any) -> None:
        arguments, target = self._pop(), self._pop()
        if not isinstance(target, GlobalName) or not self._is_class(target.path):
            what = target.path if isinstance(target, GlobalName) else type(target).__name__
            raise CheckpointError(f"the pickle makes an object of {what}; refused")
        self._stack.append({} if target.path in _MAPPINGS else Placeholder(target.path, tuple(arguments)))

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Placeholder):
            target.state = state
        elif type(target) is not dict:
            # On a dict this is the `_metadata` of a module's state dict, which nothing needs.
            raise CheckpointError(f"the pickle sets the state of a {type(target).__name__}; refused")


_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_LITERALS: Final = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINSTRING", "SHORT_BINSTRING"),
    }
)
_PUTS: Final = frozenset({"BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET"})
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED: Final = frozenset({"PROTO", "FRAME"})
_HANDLERS: Final[dict[str, Callable[[PickleMachine, Any], None]]] = {
    "MARK": PickleMachine._mark,
    "MEMOIZE": PickleMachine._memoize,
    "TUPLE": PickleMachine._tuple,
    "APPEND": PickleMachine._append,
    "APPENDS": PickleMachine._appends,
    "ADDITEMS": PickleMachine._appends,
    "SETITEM": PickleMachine._setitem,
    "SETITEMS": PickleMachine._setitems,
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "BINPERSID": PickleMachine._persistent,
    "REDUCE": PickleMachine._reduce,
    "NEWOBJ": PickleMachine._newobj,
    "BUILD": PickleMachine._build,
}
