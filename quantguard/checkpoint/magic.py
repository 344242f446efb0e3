"""What a file is, told by its name and its first bytes; the two need not agree."""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quantguard.checkpoint.header import MAX_HEADER

HEAD: Final = 512  # bytes that `by_content` wants; a tar names itself at byte 257


class Content(Enum):
    PICKLE = "pickle"  # loading it runs what it says
    CODE = "code"  # source, bytecode, a script or a native executable
    ARCHIVE = "archive"  # may hold any of the others
    UNMEASURED = "unmeasured"  # weights in a format or under a name that the gate does not read


@dataclass(frozen=True, slots=True)
class Sighting:
    content: Content
    what: str  # what gave it away, e.g. "is named *.bin", "begins like gzip"


_NAMES: Final[tuple[tuple[Content, re.Pattern[str]], ...]] = (
    (Content.PICKLE, re.compile(r"\.(bin|ckpt|cpkl|dill|joblib|mar|pickle|pkl|pt|pt2|pth|ptl|skops|torch)\Z")),
    (Content.CODE, re.compile(r"\.so(\.[0-9]+)*\Z")),
    (Content.CODE, re.compile(r"\.(class|dll|dylib|egg|exe|hta|jar|node|o|scr|wasm|whl)\Z")),
    (Content.CODE, re.compile(r"\.(bash|bat|cjs|cmd|cu|ipynb|js|mjs|pl|ps1|psm1|py[a-z]?|rb|sh|vbs|zsh)\Z")),
    (Content.ARCHIVE, re.compile(r"\.(7z|bz2|gz|lz4|nemo|npz|rar|tar|tgz|xz|zip|zst)\Z")),
    (Content.UNMEASURED, re.compile(r"\.(engine|ggml|gguf|h5|hdf5|keras|mlmodel|msgpack|onnx|onnx_data|pb|tflite)\Z")),
)

_HEADS: Final[tuple[tuple[bytes, Content, str], ...]] = (
    (b"PK\x03\x04", Content.PICKLE, "begins like a zip archive, as torch.save writes them"),
    (b"PK\x05\x06", Content.ARCHIVE, "begins like an empty zip archive"),
    (b"PK\x07\x08", Content.ARCHIVE, "begins like a split zip archive"),
    (b"\x7fELF", Content.CODE, "begins like an ELF executable"),
    (b"\xfe\xed\xfa\xce", Content.CODE, "begins like a Mach-O executable"),
    (b"\xfe\xed\xfa\xcf", Content.CODE, "begins like a Mach-O executable"),
    (b"\xce\xfa\xed\xfe", Content.CODE, "begins like a Mach-O executable"),
    (b"\xcf\xfa\xed\xfe", Content.CODE, "begins like a Mach-O executable"),
    (b"\xca\xfe\xba\xbe", Content.CODE, "begins like a Mach-O executable or a Java class"),
    (b"\x00asm", Content.CODE, "begins like WebAssembly"),
    (b"#!", Content.CODE, "begins like a script"),
    (b"\x1f\x8b", Content.ARCHIVE, "begins like gzip"),
    (b"BZh", Content.ARCHIVE, "begins like bzip2"),
    (b"\xfd7zXZ\x00", Content.ARCHIVE, "begins like xz"),
    (b"7z\xbc\xaf\x27\x1c", Content.ARCHIVE, "begins like 7z"),
    (b"\x28\xb5\x2f\xfd", Content.ARCHIVE, "begins like zstandard"),
    (b"Rar!\x1a\x07", Content.ARCHIVE, "begins like rar"),
    (b"\x89HDF\r\n\x1a\n", Content.UNMEASURED, "begins like HDF5"),
    (b"GGUF", Content.UNMEASURED, "begins like GGUF"),
)

_OPCODES: Final = frozenset(ord(opcode.code) for opcode in pickletools.opcodes)


def by_name(path: str) -> Sighting | None:
    """What the name of a file says; `path` is relative to the model directory."""
    name = path.rsplit("/", 1)[-1].lower()
    for content, pattern in _NAMES:
        if match := pattern.search(name):
            return Sighting(content, f"is named *{match[0]}")
    return None


def by_content(path: str, head: bytes) -> Sighting | None:
    """What the first `HEAD` bytes of a file say.

    `path` counts only for safetensors: one under that name is judged by its whole header when it is opened, and its
    first bytes are not mistaken for a pickle's (a header of 1,152 bytes begins with the same two). Under any other
    name it is weights that nobody opens.
    """
    if _looks_like_safetensors(head):
        if path.lower().endswith(".safetensors"):
            return None
        return Sighting(Content.UNMEASURED, "begins like safetensors and is not named so")
    for magic, content, what in _HEADS:
        if head.startswith(magic):
            return Sighting(content, what)
    return _by_structure(head)


def _by_structure(head: bytes) -> Sighting | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and set(head[2:3]) & _OPCODES:
        return Sighting(Content.PICKLE, "begins like a pickle")
    if head.startswith(b"MZ") and b"\x00" in head[:64]:
        return Sighting(Content.CODE, "begins like a Windows executable")
    if head.startswith(b"\x93NUMPY") and _has_object_dtype(head):
        return Sighting(Content.PICKLE, "is a NumPy array of pickled objects")
    if head[257:262] == b"ustar":
        return Sighting(Content.ARCHIVE, "begins like tar")
    return None


def _looks_like_safetensors(head: bytes) -> bool:
    """A plausible length, and the brace of the JSON after it."""
    return int.from_bytes(head[:8], "little") <= MAX_HEADER and head[8:9] == b"{"


def _has_object_dtype(head: bytes) -> bool:
    """`'descr': '|O'`, or a record whose header goes on past `HEAD` and so cannot be ruled out."""
    descr = re.search(rb"'descr':(.*?)'fortran_order'", head, re.DOTALL)
    return descr is None or b"O" in descr[1]
