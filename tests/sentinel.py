"""A secret that is easily found again, and the files that hold it."""

from injected import everything_in

SENTINEL = "s3cr3tv4lue0123456789abcdefabcdefabcdefab"


def holding(folder):
    return [p for p, content in everything_in(folder).items() if SENTINEL.encode() in content]
