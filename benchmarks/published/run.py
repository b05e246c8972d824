"""Tries dropzoo on networks that others publish, and writes the table of docs/surgery.md."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from trial import tried
from zoo import ZOO

for published in ZOO:
    if sys.argv[1:] and not any(w in published.id for w in sys.argv[1:]):
        continue
    if published.version is None:
        print(published.id, "absent")
        continue
    print(tried(published, lambda t: print(t, flush=True)).get("notes"))
    keras.utils.clear_session()
