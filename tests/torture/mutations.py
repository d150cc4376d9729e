"""How a valid input becomes one that may not be: of bytes, of text, of JSON values, of the parts of a format.

Every function takes a source of random choices first; hypothesis can be that source, and then makes inputs smaller.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickletools
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

INTEGERS = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 2**16, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "a\0b",
        "\ud800",
        "../x",
        "/etc/passwd",
        "n01532829",
        "é" * 300,
        [],
        {},
        [[]],
        [None],
    ),
    *({"": 0}, 0.5, -0.5, 1e308, float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), *INTEGERS),
)
TOKENS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1e999",
        "true",
        "null",
        "Infinity",
        "NaN",
        '""',
        "''",
        '"""',
        "[]",
        "{}",
        "[[",
        "]",
    ),
    *(
        "{",
        "}",
        "=",
        ".",
        ",",
        "#",
        ":",
        "\n",
        "\r",
        "\t",
        "\0",
        "\ufeff",
        "\ud7ff",
        "1979-05-27",
        "07:32:00",
        "0x1f",
        "1_0",
    ),
    *("9" * 30, "9" * 5000, "1" + "0" * 400, "[" * 3000, '{"a":' * 3000, "a.b.c", "é", '"\\ud800"', "x" * 200_000),
)
OPCODES = tuple(code.code.encode("latin1") for code in pickletools.opcodes)


def bytes_damaged(choose: random.Random, data: bytes) -> bytes:
    """One to four times a bit flipped, a range gone, doubled, moved or made of something else, a number changed."""
    found = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        at, length = choose.randint(0, len(found)), choose.choice((1, 1, 2, 4, 8, 64))
        kind = choose.randint(0, 6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << choose.randint(0, 7)
        elif kind == 1:
            del found[at : at + length]
        elif kind == 2:
            found[at:at] = found[at : at + length] * choose.choice((1, 2, 100))
        elif kind == 3:
            found[at : at + length] = bytes(choose.randint(0, 255) for _ in range(length))
        elif kind == 4:
            size, order = choose.choice((1, 2, 4, 8)), choose.choice(("little", "big"))
            number = choose.choice(INTEGERS) % 2 ** (8 * size)
            found[at : at + size] = number.to_bytes(size, order)
        elif kind == 5:
            del found[at:]
        else:
            other = choose.randint(0, len(found))
            found[at : at + length] = found[other : other + length]
    return bytes(found)


def text_damaged(choose: random.Random, text: str) -> str:
    """One to three times a word, number or line gone, doubled, exchanged with another or made of something else."""
    for _ in range(choose.randint(1, 3)):
        parts = re.findall(r"[\w.+-]+|\s+|.", text, re.S) if choose.randint(0, 1) else text.splitlines(keepends=True)
        if not parts:
            return choose.choice(TOKENS)
        at, other = (choose.randrange(len(parts)) for _ in range(2))
        kind = choose.randint(0, 5)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(other, parts[at])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts[at] = parts[other]
        elif kind == 4:
            parts[at] = choose.choice(TOKENS)
        else:
            parts.insert(at, choose.choice(TOKENS))
        text = "".join(parts)
    return text


def value_damaged(choose: random.Random, value: Any) -> Any:
    """A JSON value in which one to three places are gone, of another name, or hold something else."""
    value = json.loads(json.dumps(value))
    for _ in range(choose.randint(1, 3)):
        value = _one_place(choose, value)
    return value


def _one_place(choose: random.Random, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or choose.randint(0, 5) == 0:
        return copy.deepcopy(choose.choice(VALUES))
    key = choose.choice(list(value)) if isinstance(value, dict) else choose.randrange(len(value))
    kind = choose.randint(0, 7)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[choose.choice(("", "x", "schema", key + "x"))] = value.pop(key)
    elif kind == 2 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = _one_place(choose, value[key])
    return value


def json_damaged(choose: random.Random, data: bytes) -> bytes:
    """JSON text damaged as bytes, as text or as a value."""
    kind = choose.randint(0, 3)
    if kind == 0:
        return bytes_damaged(choose, data)
    if kind == 1:
        return _encoded(text_damaged(choose, data.decode()))
    return json.dumps(value_damaged(choose, json.loads(data))).encode()


def lines_damaged(choose: random.Random, data: bytes) -> bytes:
    """TOML, CSV or other text damaged as text, at times as bytes."""
    if choose.randint(0, 4) == 0:
        return bytes_damaged(choose, data)
    return _encoded(text_damaged(choose, data.decode()))


def checkpoint_damaged(choose: random.Random, data: bytes) -> bytes:
    """A safetensors file damaged as bytes, in its header, in the metadata in there, or in the length before them."""
    kind = choose.randint(0, 5)
    if kind == 0:
        return bytes_damaged(choose, data)
    length = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if kind == 1:
        text = json.dumps(
            {**header, "__metadata__": {"sharp_maml": "x" * choose.choice((10**3, 10**6, 10**7))}}
        ).encode()
    elif kind == 2:
        texts = header["__metadata__"]
        texts["sharp_maml"] = json_damaged(choose, texts["sharp_maml"].encode()).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    elif kind == 3:
        entry = header[choose.choice([name for name in header if name != "__metadata__"])]
        entry["dtype"] = choose.choice(
            (
                "F64",
                "F16",
                "BF16",
                "F8_E4M3",
                "F8_E5M2",
                "F8_E8M0",
                "F4",
                "F6_E2M3",
                "C64",
                "I8",
                "U64",
                "U16",
                "BOOL",
                "X",
            )
        )
        if choose.randint(0, 1):  # as many bytes as before
            start, end = entry["data_offsets"]
            width = choose.choice((1, 2, 4, 8))
            entry["shape"] = [(end - start) // width]
        text = json.dumps(header).encode()
    elif kind == 4:
        one, other = (header[choose.choice([name for name in header if name != "__metadata__"])] for _ in range(2))
        one["data_offsets"] = [value + choose.choice((-8, -1, 0, 1, 8, 2**40)) for value in other["data_offsets"]]
        text = json.dumps(header).encode()
    else:
        text = json_damaged(choose, data[8 : 8 + length])
    size = len(text) if choose.randint(0, 4) else choose.choice(INTEGERS) % 2**64
    return struct.pack("<Q", size) + text + rest


def cache_damaged(choose: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """A data cache: its index damaged, at times with the right digest of what is wrong; or the header of an array."""
    found = dict(files)
    if choose.randint(0, 2) == 0:
        name = choose.choice([name for name in files if name.endswith(".npy")])
        header, pixels = files[name][:128], files[name][128:]
        kind = choose.randint(0, 3)
        if kind == 0:
            found[name] = bytes_damaged(choose, header) + pixels
        elif kind == 1:
            text = _encoded(text_damaged(choose, header[10:].decode("latin1")))
            found[name] = header[:8] + struct.pack("<H", len(text) % 2**16) + text + pixels
        elif kind == 2:
            found[name] = choose.choice((b"", b"PK\x03\x04", b"\x80\x04.", bytes(128))) + pixels
        else:
            found[name] = bytes_damaged(choose, files[name])
        return found
    if choose.randint(0, 1):
        return found | {"index.json": json_damaged(choose, files["index.json"])}
    index = value_damaged(choose, json.loads(files["index.json"]))
    if isinstance(index, dict):
        content = {key: index.get(key) for key in ("name", "size", "channels", "splits")}
        index["digest"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found | {"index.json": json.dumps(index).encode()}


def pickle_damaged(choose: random.Random, data: bytes) -> bytes:
    """A pickle damaged as bytes, or operation by operation, numbers and lengths among them."""
    if choose.randint(0, 2) == 0:
        return bytes_damaged(choose, data)
    starts = [at for _, _, at in pickletools.genops(data)]
    parts = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(choose.randint(1, 3)):
        at, other = (choose.randrange(len(parts)) for _ in range(2))
        kind = choose.randint(0, 6)
        if kind == 0 and len(parts) > 1:
            del parts[at]
        elif kind == 1:
            parts.insert(other, parts[at])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts.insert(at, choose.choice(OPCODES) + bytes(choose.randint(0, 8)))
        elif kind == 4:
            parts.insert(at, choose.choice(_NUMBERS)(choose.choice(INTEGERS)))
        elif kind == 5:
            parts[at] = choose.choice(_NUMBERS)(choose.choice(INTEGERS))
        else:
            parts[at] = bytes_damaged(choose, parts[at])
    return b"".join(parts)


_NUMBERS: tuple[Callable[[int], bytes], ...] = (
    lambda number: b"J" + struct.pack("<I", number % 2**32),
    lambda number: b"I%d\n" % number,
    lambda number: b"\x8a\x09" + (number % 2**64).to_bytes(9, "little"),
    lambda number: b"r" + struct.pack("<I", number % 2**32),  # into the memo
    lambda number: b"j" + struct.pack("<I", number % 2**32),  # out of it
    lambda number: b"B" + struct.pack("<I", number % 2**32),
    lambda number: b"\x8e" + struct.pack("<Q", number % 2**64),
    lambda number: b"\x95" + struct.pack("<Q", number % 2**64),
)


def zip_damaged(choose: random.Random, data: bytes) -> bytes:
    """A zip damaged as bytes, in a field of its headers, or packed anew with members of other names and contents."""
    kind = choose.randint(0, 2)
    if kind == 0:
        return bytes_damaged(choose, data)
    if kind == 1:
        found = bytearray(data)
        for _ in range(choose.randint(1, 3)):
            marks = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
            at, size = choose.choice(marks) + 2 * choose.randint(2, 22), choose.choice((2, 4))
            found[at : at + size] = (choose.choice(INTEGERS) % 2 ** (8 * size)).to_bytes(size, "little")
        return bytes(found)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = choose.randrange(len(members))
    name, content = members[at]
    if choose.randint(0, 1):
        name = text_damaged(choose, name)[:1000].replace("\ud800", "")
    members[at] = (name, image_damaged(choose, content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", choose.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in dict(members).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def image_damaged(choose: random.Random, data: bytes) -> bytes:
    """An image damaged as bytes; a PNG also chunk by chunk, with the right checksums, so that its size is believed."""
    if not data.startswith(b"\x89PNG") or choose.randint(0, 1):
        return bytes_damaged(choose, data)
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    where = choose.randrange(len(chunks))
    name, content = chunks[where]
    if name == b"IHDR" and choose.randint(0, 1):
        sizes = (0, 1, 100, 5000, 12_000, 40_000, 2**31 - 1, 2**32 - 1)
        content = struct.pack(">II", choose.choice(sizes), choose.choice(sizes)) + content[8:]
    elif choose.randint(0, 3) == 0:
        name = choose.choice((b"tEXt", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"tRNS", b"eXIf", b"pHYs"))
    else:
        content = bytes_damaged(choose, content)
    chunks[where] = (name, content)
    if choose.randint(0, 3) == 0:
        chunks.insert(choose.randrange(len(chunks)), choose.choice(chunks))
    packed = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:8] + b"".join(packed)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
