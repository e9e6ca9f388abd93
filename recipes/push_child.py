"""Publish a child on the Hub as one commit that lands whole or not at all; a super-net or a table in the same way.

python recipes/push_child.py --source runs/quickstart-scratch/child --repo_id user/my-child --private --dry_run
python recipes/push_child.py --source runs/quickstart-scratch/child --repo_id user/my-child --private \
    --attachments runs/quickstart-scratch/scores.jsonl
python recipes/push_child.py --source runs/quickstart-scratch/supernet --repo_id user/my-supernet
python recipes/push_child.py --source imdb --repo_id user/nasbert-table-imdb
python recipes/push_child.py --source minilm --repo_id user/nasbert-table-minilm
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
