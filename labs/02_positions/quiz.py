"""Questions of lab 2: each a function of a seed, whose answer the framework computes."""

import math
from random import Random

import torch

import transformer_lab as tl
from transformer_lab.course.quizzing import Question
from transformer_lab.models.layers.positions.learned import Learned
from transformer_lab.models.layers.positions.relative import RelativeBuckets, bucket
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal


def place_in_a_pack(random: Random) -> Question:
    lengths = random.sample(range(3, 12), 3)
    token = random.randrange(lengths[0] + 1, sum(lengths))
    place = int(tl.Layout.of(lengths).positions[token])
    return Question(
        f"Texts of {lengths[0]}, {lengths[1]} and {lengths[2]} tokens are packed. Tokens of the batch are counted "
        f"from 0, and so are positions. What is the position of token {token}?",
        place,
        "positions begin anew, at 0, with each text",
        {
            token: "this counts through the whole batch",
            place + 1: "the first position is 0",
            token - lengths[0]: "the third text begins anew, too",
        },
    )


def a_wave(random: Random) -> Question:
    position, dim = random.choice([1, 2, 3]), random.choice([4, 8])
    value = float(Sinusoidal(dim=dim, num_heads=1, causal=True, scale=1.0).table[position, 0])
    return Question(
        f"Sinusoidal positions of width {dim}: what does channel 0 of position {position} have (angles in radians, to "
        "two decimals)?",
        round(value, 2),
        f"10000 to the power of 0 is 1, so it is the sine of {position}",
        {
            round(math.cos(position), 2): "the sine comes first; this is channel 1",
            round(math.sin(position / 10_000), 4): "channel 0 has the fastest wave",
            float(position): "this is the angle",
        },
    )


def first_position(random: Random) -> Question:
    dim = random.choice([6, 8, 10, 12])
    table = Sinusoidal(dim=dim, num_heads=1, causal=True, scale=1.0).table
    return Question(
        f"What do the {dim} channels of sinusoidal position 0 sum to?",
        int(table[0].sum()),
        f"the sine of 0 is 0 and the cosine 1, and {dim // 2} channels are cosines",
        {0: "the sines are 0, but the cosine of 0 is 1", dim: "only every second channel is a cosine"},
    )


def parameters_of_learned(random: Random) -> Question:
    length, dim = random.choice([128, 512, 1024]), random.choice([64, 128, 768])
    with torch.device("meta"):
        scheme = Learned(dim=dim, num_heads=1, causal=True, max_length=length)
    count = sum(weight.numel() for weight in scheme.parameters())
    return Question(
        f"Learned positions for texts of up to {length} tokens, in a model of width {dim}. How many parameters are "
        "that?",
        count,
        f"a row of {dim} numbers for each of {length} positions",
        {
            length: "each position has a vector",
            2 * count: "there is one table",
            dim: "each position has a vector of its own",
        },
    )


def parameters_of_rotary(random: Random) -> Question:
    heads, width = random.choice([4, 8]), random.choice([32, 64])
    scheme = Rotary(dim=heads * width, num_heads=heads, causal=True)
    count = sum(weight.numel() for weight in scheme.parameters())
    return Question(
        f"Rotary positions in a model with {heads} heads of width {width}. How many parameters do they learn?",
        count,
        "the angles are a formula of position and channel",
        {width // 2: "there is a rate for each pair, but it is fixed", heads * width: "nothing of it is learned"},
    )


def parameters_of_relative(random: Random) -> Question:
    buckets, heads, layers = random.choice([16, 32]), random.choice([4, 8, 12]), random.choice([6, 12])
    with torch.device("meta"):
        scheme = RelativeBuckets(dim=64, num_heads=heads, causal=True, num_buckets=buckets)
    count = sum(weight.numel() for weight in scheme.parameters())
    return Question(
        f"T5's relative positions with {buckets} buckets, in a stack of {layers} layers with {heads} heads. How many "
        "parameters, when all layers share one table?",
        count,
        f"a number for each of {buckets} buckets and {heads} heads",
        {buckets: "each head has its own", count * layers: "the layers share one table"},
    )


def same_score(random: Random) -> Question:
    query, key, more = random.randint(20, 40), random.randint(1, 15), random.randint(5, 50)
    scheme = Rotary(dim=16, num_heads=1, causal=True)
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    q, k = torch.randn(2, 1, 1, 16, generator=generator)

    def score(first: int, second: int) -> float:
        turned = scheme.rotate(q, torch.tensor([first])) * scheme.rotate(k, torch.tensor([second]))
        return float(turned.sum())

    candidates = {
        f"query at {query + more}, key at {key + more}": (query + more, key + more),
        f"query at {query + more}, key at {key}": (query + more, key),
        f"query at {key}, key at {query}": (key, query),
        f"query at {2 * query}, key at {2 * key}": (2 * query, 2 * key),
    }
    here = score(query, key)
    right = min(candidates, key=lambda text: abs(score(*candidates[text]) - here))
    why = "the score depends on the distance alone, and here it is another one"
    return Question(
        f"Rotary positions. A query stands at {query} and its key at {key}. At which places has the same pair the "
        "same score?",
        right,
        "angles are subtracted in the dot product, so only the distance counts, with its sign",
        {text: why for text in candidates if text != right},
    )


def a_turn(random: Random) -> Question:
    position = random.choice([1, 2, 3])
    x = Rotary(dim=2, num_heads=1, causal=True).rotate(torch.tensor([[[1.0, 0.0]]]), torch.tensor([position]))
    return Question(
        f"A head of width 2 has the query (1, 0) at position {position}. What is the first number after its rotary "
        "turn, to two decimals?",
        round(float(x[0, 0, 0]), 2),
        f"the rate of the first pair is 1, and 1 x cos {position} - 0 x sin {position} is {float(x[0, 0, 0]):.2f}",
        {
            round(float(x[0, 0, 1]), 2): "this is the second number",
            1.0: "only position 0 stays as it is",
            float(position): "this is the angle",
        },
    )


def length_after_a_turn(random: Random) -> Question:
    numbers, place = random.choice([(3, 4), (6, 8), (5, 12), (8, 15)]), random.randint(2, 90)
    turned = Rotary(dim=2, num_heads=1, causal=True).rotate(
        torch.tensor([[[*map(float, numbers)]]]), torch.tensor([place])
    )
    return Question(
        f"A head of width 2 has the query {numbers} at position {place}. How long is the vector (the root of the sum "
        "of its squares) after its rotary turn?",
        round(float(turned.norm())),
        "a turn changes the direction of a vector, and not its length",
        {sum(numbers): "lengths are added as squares", place: "a turn does not make a vector longer"},
    )


def which_bucket(random: Random) -> Question:
    near, far = random.randint(1, 6), random.choice([60, 80, 100])
    same = bucket(-far, 32, 128, True) == bucket(-far - 1, 32, 128, True)
    assert same and bucket(-near, 32, 128, True) != bucket(-near - 1, 32, 128, True)
    return Question(
        "A decoder has T5's relative positions with 32 buckets and a largest distance of 128. Which two distances "
        "share a bucket?",
        f"of {far} and {far + 1}",
        "buckets get wider the farther away: whether it is 60 or 61 tokens hardly counts",
        {
            f"of {near} and {near + 1}": "small distances have a bucket each",
            f"of {near} and {far}": "these are far apart",
            "of no two distances": "a table of all distances would have no end",
        },
    )


def too_long(random: Random) -> Question:
    limit = random.choice([128, 512, 1024])
    return Question(
        f"A model was trained on texts of up to {limit} tokens. With which positions can it not read one of "
        f"{limit + 1} at all?",
        "learned positions",
        f"the table has {limit} rows, and none for the next token",
        {
            "ALiBi, a penalty that grows with distance": "it is a formula, and has a value for any distance",
            "relative buckets": "the last bucket takes all that is farther away",
            "no positions": "then nothing is counted",
        },
    )


def where_it_acts(random: Random) -> Question:
    schemes = {
        "sinusoidal positions": "the vectors of the words, once",
        "rotary positions": "queries and keys, in each layer",
        "relative buckets": "the scores, in each layer",
    }
    asked = random.choice(list(schemes))
    others = [*schemes.values(), "the weights, after softmax"]
    return Question(
        f"What do {asked} change?",
        schemes[asked],
        "sines are added to words; turns are done to queries and keys; a bias is added to scores",
        {
            text: next((f"that is what {name} do" for name, what in schemes.items() if what == text), "no scheme does")
            for text in others
            if text != schemes[asked]
        },
    )


QUESTIONS = [
    place_in_a_pack,
    a_wave,
    first_position,
    parameters_of_learned,
    parameters_of_rotary,
    parameters_of_relative,
    same_score,
    a_turn,
    length_after_a_turn,
    which_bucket,
    too_long,
    where_it_acts,
]
