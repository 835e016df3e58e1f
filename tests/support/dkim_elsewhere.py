"""DKIM without a milter: signs the message on standard input, or verifies it.

Arguments: `sign` and the file of a private key, or `verify` and a file with the
records of public keys, as opendkim's TestPublicKeys has them.
"""
import sys

import dkim

what, path = sys.argv[1:]
message = sys.stdin.buffer.read()
if what == "sign":
    with open(path, "rb") as key:
        field = dkim.sign(
            message, b"s", b"example.com", key.read(), canonicalize=(b"simple", b"simple")
        )
    sys.stdout.buffer.write(field + message)
else:
    with open(path, "rb") as records:
        known = dict(record.rstrip(b"\n").split(b" ", 1) for record in records)
    look_up = lambda name, timeout=5: known.get(name.rstrip(b"."))
    print("pass" if dkim.verify(message, dnsfunc=look_up) else "fail")
