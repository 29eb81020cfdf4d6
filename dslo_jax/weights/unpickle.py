"""A safe interpreter for the pickles of checkpoints.

A pickle is a program for a small machine with a stack. This machine has only the
instructions for lists, dictionaries, numbers, texts and tensors. Names are looked up
only in the table of ``admitted.py``, and a "call" calls a function of that table. A
hostile pickle can therefore neither import, nor read an attribute, nor call anything
else; it is refused.

The number of instructions, the memory of each, and the number of bytes are limited.
"""

import pickle  # only for the codes of its instructions
import struct
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.admitted import Maker, Record, RecordType, find


_MAX_BYTES = 1 << 24
_MAX_TEXT = 1 << 20
_MAX_NAME = 256
_MAX_ORDERS = 1_000_000
_MAX_KEY = 1 << 60  # whole numbers below it have different hashes
_TOO_MUCH = "a pickle that is too large for a table of tensors"


class _Mark:
    """The mark on the stack where a tuple, a list or entries of a dictionary begin."""


_MARK = _Mark()


def unpickle(
    file: BufferedIOBase, path: Path, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Read one pickle.

    Args:
        file: The open file, which is read up to the end of the pickle.
        path: The file, to be named in errors.
        persistent: Function from a persistent identifier of the pickle to an object; it
            raises ``ValueError`` for an identifier that PyTorch does not write.

    Returns:
        Plain values, and the stand-ins of ``admitted.py``.

    Raises:
        CheckpointError: The pickle has a name or instruction that is not allowed
            (``W05``).
        ValueError: The pickle is damaged.
    """
    machine = _Machine(file, path, persistent)
    for _ in range(_MAX_ORDERS):
        if machine.step():
            return machine.result()
    raise ValueError(_TOO_MUCH)


class _Machine:
    """The interpreter: its stack, its memory and its instructions."""

    def __init__(
        self, file: BufferedIOBase, path: Path, persistent: Callable[[Any], Any] | None
    ):
        self._file = file
        self._left = _MAX_BYTES
        self._path = path
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def step(self) -> bool:
        """Carry out one instruction; return true if it was the last one.

        Raises:
            CheckpointError: The instruction, or a name in it, is not allowed (``W05``).
            ValueError: The instruction is not valid at this point.
        """
        code = self._read(1)
        if code == pickle.STOP:
            return True
        order = _ORDERS.get(code)
        if order is None:
            raise self._refusal(f"the pickle instruction {code!r}")
        order(self)
        return False

    def result(self) -> Any:
        """The value of the pickle."""
        value = self._pop()
        if self._stack:
            raise ValueError("unused values")
        return value

    def _refusal(self, what: str) -> CheckpointError:
        return CheckpointError(
            "W05",
            f"{self._path} is refused: {what} does not belong in a file of weights. It "
            "was not run. Ask its author for safetensors, or save the state dict alone "
            "with the program that wrote it",
        )

    # ---- bytes -------------------------------------------------------------------

    def _read(self, count: int) -> bytes:
        self._left -= count
        if count > _MAX_TEXT or self._left < 0:
            raise ValueError(_TOO_MUCH)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("a pickle that does not end")
        return data

    def _skip(self, count: int) -> None:
        self._read(count)

    def _number(self, width: int) -> int:
        return int.from_bytes(self._read(width), "little")

    def _signed(self, width: int) -> int:
        return int.from_bytes(self._read(width), "little", signed=True)

    def _text(self, width: int, encoding: str = "utf-8") -> str:
        return self._read(self._number(width)).decode(encoding)

    def _line(self) -> str:
        line = self._file.readline(_MAX_NAME)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("a name that does not end")
        return line[:-1].decode("utf-8")

    # ---- the stack ---------------------------------------------------------------

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("a value is missing")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _pop_to_mark(self) -> list[Any]:
        """Remove and return the values since the last mark, and remove the mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                values = self._stack[place + 1 :]
                del self._stack[place:]
                return values
        raise ValueError("a list without a beginning")

    def _put(self, place: int) -> None:
        self._memory[place] = self._top()

    def _get(self, place: int) -> None:
        if place not in self._memory:
            raise ValueError("a reference to nothing")
        self._push(self._memory[place])

    # ---- collections -------------------------------------------------------------

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)))

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise ValueError("an element of something that is not a list")
        target.extend(values)

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise ValueError("an entry of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys could be nested deeply, or could all have the same hash.
            if type(key) is not str and (type(key) is not int or abs(key) > _MAX_KEY):
                raise self._refusal(f"a {type(key).__name__} as a key")
            target[key] = value

    # ---- names and calls ---------------------------------------------------------

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is not a text")
        found = find(f"{module}.{name}")
        if found is None:
            raise self._refusal(repr(f"{module}.{name}"[:_MAX_NAME]))
        self._push(found)

    def _stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Maker) or type(arguments) is not tuple:
            raise self._refusal(f"a call of a {type(function).__name__}")
        self._push(function.make(arguments))

    def _object(self) -> None:
        arguments, kind = self._pop(), self._pop()
        if not isinstance(kind, RecordType) or type(arguments) is not tuple:
            raise self._refusal(f"an object of a {type(kind).__name__}")
        self._push(Record())

    def _attributes(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.fields = state if type(state) is dict else {}
        elif type(target) is not dict:  # attributes of a dictionary are ignored
            raise self._refusal(f"attributes of a {type(target).__name__}")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise ValueError("a reference to something outside")
        self._push(self._persistent(self._pop()))


_ORDERS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: lambda m: m._skip(1),
    pickle.FRAME: lambda m: m._skip(8),
    pickle.NONE: lambda m: m._push(None),
    pickle.NEWTRUE: lambda m: m._push(True),
    pickle.NEWFALSE: lambda m: m._push(False),
    pickle.BININT: lambda m: m._push(m._signed(4)),
    pickle.BININT1: lambda m: m._push(m._number(1)),
    pickle.BININT2: lambda m: m._push(m._number(2)),
    pickle.LONG1: lambda m: m._push(m._signed(m._number(1))),
    pickle.BINFLOAT: lambda m: m._push(struct.unpack(">d", m._read(8))[0]),
    pickle.BINUNICODE: lambda m: m._push(m._text(4)),
    pickle.SHORT_BINUNICODE: lambda m: m._push(m._text(1)),
    pickle.SHORT_BINSTRING: lambda m: m._push(m._text(1, "latin-1")),
    pickle.BINBYTES: lambda m: m._push(m._read(m._number(4))),
    pickle.SHORT_BINBYTES: lambda m: m._push(m._read(m._number(1))),
    pickle.MARK: lambda m: m._push(_MARK),
    pickle.EMPTY_TUPLE: lambda m: m._push(()),
    pickle.EMPTY_LIST: lambda m: m._push([]),
    pickle.EMPTY_DICT: lambda m: m._push({}),
    pickle.TUPLE: lambda m: m._push(tuple(m._pop_to_mark())),
    pickle.TUPLE1: lambda m: m._tuple(1),
    pickle.TUPLE2: lambda m: m._tuple(2),
    pickle.TUPLE3: lambda m: m._tuple(3),
    pickle.APPEND: lambda m: m._extend([m._pop()]),
    pickle.APPENDS: lambda m: m._extend(m._pop_to_mark()),
    pickle.SETITEM: lambda m: m._update([m._pop(), m._pop()][::-1]),
    pickle.SETITEMS: lambda m: m._update(m._pop_to_mark()),
    pickle.BINPUT: lambda m: m._put(m._number(1)),
    pickle.LONG_BINPUT: lambda m: m._put(m._number(4)),
    pickle.MEMOIZE: lambda m: m._put(len(m._memory)),
    pickle.BINGET: lambda m: m._get(m._number(1)),
    pickle.LONG_BINGET: lambda m: m._get(m._number(4)),
    pickle.GLOBAL: lambda m: m._name(m._line(), m._line()),
    pickle.STACK_GLOBAL: _Machine._stack_name,
    pickle.REDUCE: _Machine._call,
    pickle.NEWOBJ: _Machine._object,
    pickle.BUILD: _Machine._attributes,
    pickle.BINPERSID: _Machine._persistent_id,
}
"""All instructions, by their codes in the standard library."""
