"""`python -m hf_nasbert`: the command, where its script is not on the path."""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":  # worker processes import this file under another name
    sys.exit(main())
