"""Images of 16 bits a channel, which Pillow reads but does not write."""

import struct
import zlib

KIND = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type: gray, with alpha, RGB, with alpha


def png_of_16_bits(pixels):
    """Whole numbers [h w c] below 65,536 as a PNG file, by the W3C's specification."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 16, KIND[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name, content):
    ends = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
    return ends[0] + name + content + ends[1]
