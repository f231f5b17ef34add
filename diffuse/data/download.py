"""Download one file: `python -P download.py URL PATH MOST`, run by `sources.watched`.

A program of its own, with the standard library only, so that it starts in no time and can be ended.
"""

import errno
import http.client
import sys
import urllib.request
from urllib.error import URLError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(url: str, path: str, most: str) -> None:
    total = 0
    request = urllib.request.Request(url, headers={"User-Agent": "diffuse"})
    with urllib.request.urlopen(request, timeout=10) as answer, open(path, "wb") as file:
        while block := answer.read(1 << 16):
            total += len(block)
            if total > int(most):
                raise OSError(f"{url} is larger than the {most} bytes that were expected")
            file.write(block)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in FULL:
            sys.exit(errno.ENOSPC)  # there may be no room for words, either
        reason = getattr(error, "reason", error) if type(error) is URLError else error
        text = getattr(reason, "strerror", None) or str(reason)
        sys.exit(f"error: {' '.join(text.split())}")
