"""Records of made-up searches and measurements."""

import random

from hf_nasbert.space import SearchSpace

SPACE = SearchSpace.chain(3, ("attention", "ffn", "conv3"))
CHILDREN = [  # architecture, loss, parameters, FLOPs: the front of parameters is the places 1, 3, 4; of FLOPs 2, 4
    ("attention-ffn-conv3", 5.5, 1_200_000, 40_000_000),
    ("conv3-conv3-conv3", 5.75, 1_000_000, 30_000_000),
    ("attention-conv3-ffn", 5.625, 1_300_000, 20_000_000),
    ("conv3-ffn-conv3", 5.25, 1_100_000, 35_000_000),
    ("ffn-ffn-ffn", 5.125, 1_400_000, 25_000_000),
]
ABOUT = {"supernet": "f11cb030a2258e7f", "text": "imdb", "num_dev_batches": 4}


def child(architecture, loss, parameters, flops, **further):
    costs = {"num_parameters": parameters, "flops": flops, **further}
    return {"record": "child", "architecture": architecture, "score": loss, "cost": costs}


def history(children=CHILDREN, budget=None, about=ABOUT, **settings):
    settings = {"search": "evolution", "seed": 3, "budget": budget or {}, "space": SPACE.to_dict(), **settings}
    head = {"record": "search", "settings": {**settings, "about": about}, "versions": {"torch": "2.13.0"}}
    return [head, *(child(*values) for values in children)]


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def measurement(*, method="uniform", seed=0, step=10, pairs=None, blocks=None, gain=0.0):
    """A record of made-up pairs: gradient similarity falls with distance and rises with that of the inputs."""
    rng = random.Random(seed)
    made = []
    for child in range(8):
        level = random.Random(child).gauss(0, 0.1)  # rows of a child have something in common
        for distance in (1, 2, 3):
            for block in range(3):
                for batch in range(2):
                    inputs = 1.0 if block == 0 else 0.9 - 0.1 * distance + rng.gauss(0, 0.03)
                    value = 0.9 - 0.15 * distance + 0.5 * (inputs - 0.7) + level + gain + rng.gauss(0, 0.01)
                    made.append(
                        {
                            "child": child,
                            "architecture": "a",
                            "other": f"b{distance}",
                            "distance": distance,
                            "block": block,
                            "operator": ("ffn", "attention")[(block + child) % 2],
                            "num_before": min(block, distance),
                            "batch": batch,
                            "gradient_similarity": value,
                            "input_similarity": inputs,
                            "output_similarity": inputs,
                        }
                    )
    compared = [
        {"setting": number, "block": block, "first": "attention", "second": "ffn", "gradient_similarity": 0.5 + gain}
        for number in range(3)
        for block in range(2)
    ]
    return {
        "supernet": f"{method}-{seed}-{step}",
        "method": method,
        "seed": seed,
        "step": step,
        "max_steps": 10,
        "pairs": columns(pairs or made),
        "blocks": columns(blocks or compared),
    }


STUDY = [
    measurement(method=method, seed=seed, step=step, gain=gain)
    for seed in (0, 1)
    for method, step, gain in (("uniform", 0, 0.1), ("uniform", 5, -0.05), ("uniform", 10, 0), ("magic_t", 10, 0.03))
]
