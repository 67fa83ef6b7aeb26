"""Unpacks LiveCodeBench's private tests without running a pickle."""

import base64
import json
import pickletools
import zlib

_MAX_UNPACKED_MB = 256
_PICKLE_OF_A_STRING = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def _pickled_string(raw: bytes) -> str:
    """The single string in a pickle, read from its opcodes: nothing is unpickled or looked up."""
    found: list[str] = []
    for opcode, argument, _ in pickletools.genops(raw):
        if "UNICODE" in opcode.name:
            found.append(str(argument))
        elif opcode.name not in _PICKLE_OF_A_STRING:
            raise ValueError(f"the pickle holds {opcode.name}, expected one string and nothing else")
    if len(found) != 1:
        raise ValueError(f"the pickle holds {len(found)} strings, expected 1")
    return found[0]


def unpack_private_cases(packed: str) -> list[object]:
    """The cases in `packed`: base64 of zlib of a pickled string of JSON. Raises ValueError for other text."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(packed, validate=True), _MAX_UNPACKED_MB << 20)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return list(json.loads(_pickled_string(raw)))
