"""Publish a child on the Hub as one commit that lands whole or not at all; a super-net or a table in the same way.

python recipes/push_child.py --source runs/quickstart/child --repo_id user/my-child --private --dry_run
python recipes/push_child.py --source runs/quickstart/child --repo_id user/my-child --private \
    --attachments runs/quickstart/scores.jsonl
python recipes/push_child.py --source runs/quickstart/supernet --repo_id user/my-supernet
python recipes/push_child.py --source imdb --repo_id user/nasbert-table-imdb
"""

from hf_nasbert.hub import PushArguments, push
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Push as the arguments say; whatever the Hub or the folder refuse ends in one line that says what to do."""
    (arguments,) = parse_recipe_arguments([PushArguments], argv, description=__doc__)
    with user_mistakes("push_child", [arguments]):
        pushed = push(arguments)
        say(pushed)


if __name__ == "__main__":
    main()
