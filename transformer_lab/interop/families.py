"""What a family of published models is: its config.json, its tensors and its heads, each as a table."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformer_lab.interop.options import Choice, Fixed, Ignored, Key, Option, Ours, Theirs
from transformer_lab.interop.weights import Pair

DECODER = "transformer_lab.models.decoder.Decoder"
ENCODER = "transformer_lab.models.encoder.Encoder"
PRE_NORM, POST_NORM = "transformer_lab.models.blocks.PreNorm", "transformer_lab.models.blocks.PostNorm"
RMS, LAYER_NORM = "transformer_lab.models.layers.norms.RMSNorm", "transformer_lab.models.layers.norms.LayerNorm"
SANDWICH_NORM = "transformer_lab.models.blocks.SandwichNorm"
SEQ2SEQ = "transformer_lab.models.seq2seq.Seq2Seq"
RELATIVE = "transformer_lab.models.layers.positions.relative.RelativeBuckets"
ATTENTION = "transformer_lab.models.layers.attention.Attention"
ROTARY = "transformer_lab.models.layers.positions.rotary.Rotary"
LEARNED = "transformer_lab.models.layers.positions.learned.Learned"
SINUSOIDAL = "transformer_lab.models.layers.positions.sinusoidal.Sinusoidal"
ALIBI = "transformer_lab.models.layers.positions.alibi.Alibi"
FEED_FORWARD = "transformer_lab.models.layers.feed_forward"
LANGUAGE_MODELING = "transformer_lab.tasks.language_modeling.LanguageModeling"
CLASSIFICATION = "transformer_lab.tasks.classification.Classification"
TRANSLATION = "transformer_lab.tasks.translation.Translation"
MLM_NSP = "transformer_lab.tasks.mlm_nsp.MLMNSP"

# What a config's options call these classes: `norm=rms`.
CALLED = {
    DECODER: "decoder",
    ENCODER: "encoder",
    SEQ2SEQ: "seq2seq",
    PRE_NORM: "pre_norm",
    POST_NORM: "post_norm",
    SANDWICH_NORM: "sandwich_norm",
    RMS: "rms",
    LAYER_NORM: "layer",
    ATTENTION: "attention",
    RELATIVE: "relative",
    ROTARY: "rotary",
    LEARNED: "learned",
    SINUSOIDAL: "sinusoidal",
    ALIBI: "alibi",
    f"{FEED_FORWARD}.GELU": "gelu",
    f"{FEED_FORWARD}.ReLU": "relu",
    f"{FEED_FORWARD}.SiLU": "silu",
    f"{FEED_FORWARD}.SquaredReLU": "squared_relu",
    f"{FEED_FORWARD}.XIELU": "xielu",
    f"{FEED_FORWARD}.SwiGLU": "swiglu",
    f"{FEED_FORWARD}.GeGLU": "geglu",
}

Keys = Mapping[str, Any]  # ours, dotted, with their values: what a config.json says
Table = Callable[[Keys], Iterable[Pair]]

# Keys of a config.json that a model of the same weights does not depend on: how it was trained, is stored, or writes.
PASSED = frozenset(
    [
        "architectures",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "auto_map",
        "use_cache",
        "initializer_range",
        "gradient_checkpointing",
        "attn_implementation",
        "tokenizer_class",
        "name_or_path",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "torchscript",
        "use_return_dict",
        "chunk_size_feed_forward",
        "task_specific_params",
        "finetuning_task",
        "problem_type",
        "id2label",
        "label2id",
        "num_labels",
        "vocab_size",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "cls_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "mask_token_id",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
        "max_length",
        "min_length",
        "length_penalty",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "num_return_sequences",
        "early_stopping",
        "keys_to_ignore_at_inference",
        "pretraining_tp",
        "model_max_length",
        "quantization_config",
        "license",
        "cache_implementation",
    ]
)


@dataclass(frozen=True)
class Head:
    """A class of theirs: the body of a family with what a task of ours puts on it; without a `task`, the body alone."""

    architecture: str
    task: str | None = None  # what `task._target_` names
    name: str | None = None  # of that option of the group
    options: tuple[Option, ...] = ()
    table: Table = lambda keys: ()


@dataclass(frozen=True)
class Family:
    """Models of one `model_type`. Where a head stands on a body, names of its tensors begin with `prefix`."""

    model_type: str
    prefix: str
    options: tuple[Option, ...]
    table: Table  # of the body
    heads: tuple[Head, ...]  # the body alone is the last
    passed: frozenset[str] = PASSED
    empty: str = r"(?!)"  # of tensors in old files that hold nothing
    also: Keys = field(default_factory=dict)  # written into a config.json, besides

    def head(self, architecture: str | None) -> Head:
        """The class of that name; of one that no task here is like, the body. A decoder of no class writes."""
        if architecture is None and self.heads[0].task == LANGUAGE_MODELING:
            return self.heads[0]
        return next((head for head in self.heads if head.architecture == architecture), self.heads[-1])

    def inward(self, theirs: Theirs, head: Head) -> dict[str, Any]:
        """Our keys. Raises ValueError for a key there, by its name, that has no option here."""
        found: dict[str, Any] = {}
        for option in (*self.options, *head.options):
            found |= option.inward(theirs)
        theirs.refuse_rest({*self.passed, *self.also})
        return found

    def outward(self, ours: Ours, head: Head) -> dict[str, Any]:
        """A config.json; what does not fit is noted in `ours`."""
        found: dict[str, Any] = {"architectures": [head.architecture], "model_type": self.model_type, **self.also}
        for option in (*self.options, *head.options):
            found |= option.outward(ours)
        ours.refuse_rest()
        return found

    def pairs(self, keys: Keys, head: Head) -> list[Pair]:
        """All tensors of a class."""
        prefix = "" if head.task is None else self.prefix
        body = [replace(pair, theirs=f"{prefix}{pair.theirs}") for pair in self.table(keys)]
        return [*body, *head.table(keys)]


def layer(name: str, **options: Any) -> dict[str, Any]:
    """Our keys of a feed-forward layer of this class."""
    return {
        "feed_forward._target_": f"{FEED_FORWARD}.{name}",
        **{f"feed_forward.{key}": value for key, value in options.items()},
    }


def plain(**model: Any) -> Fixed:
    """What hardly any published model has, and what all of a family have alike."""
    usual: dict[str, Any] = {"qk_norm": False, "window": None, "global_every": None, "global_first": 0}
    usual |= {"embedding_norm": False, "mup": False, "head_dim": None, "out_bias": None}
    options = {f"model.{key}": value for key, value in {**usual, **model}.items() if value is not Ellipsis}
    return Fixed({"mixer._target_": ATTENTION, **options})


@dataclass(frozen=True)
class KeyValueHeads(Option):
    """How many heads share keys and values, under the key `theirs`; without one, none do."""

    theirs: str | None
    default: int | None = None  # of a config.json that does not say; None: as many as there are heads

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return {"model.num_kv_heads": theirs.get(self.theirs, self.default) if self.theirs else None}

    def outward(self, ours: Ours) -> dict[str, Any]:
        heads, shared = ours.get("model.num_heads"), ours.get("model.num_kv_heads")
        if self.theirs:
            return {self.theirs: shared or heads}
        if shared is not None and shared != heads:
            ours.want("model.num_kv_heads", None)
        return {}


OWN_KEYS = KeyValueHeads(None)


@dataclass(frozen=True)
class HeadDim(Option):
    """How wide a head is, under the key `theirs`; of a config.json without it `default`, or the width by the number of
    heads."""

    theirs: str = "head_dim"
    default: int | None = None
    dim: str = "hidden_size"
    heads: str = "num_attention_heads"

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        dim, heads = theirs.whole(self.dim), theirs.whole(self.heads)
        width = theirs.whole(self.theirs, self.default or dim // heads)
        return {"model.head_dim": None if width * heads == dim else width}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {self.theirs: ours.get("model.head_dim") or ours.get("model.dim") // ours.get("model.num_heads")}


class DecoderLayers(Key):
    """Blocks of the decoder; where nothing says so, as many as the encoder has."""

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {self.theirs: ours.get(self.ours) or ours.get("model.num_layers")}


def decoder_layers(keys: Keys) -> int:
    return int(keys["model.num_decoder_layers"] or keys["model.num_layers"])


def head_dim(keys: Keys) -> int:
    return int(keys["model.head_dim"] or keys["model.dim"] // keys["model.num_heads"])


def out_bias(keys: Keys) -> bool:
    own = keys["model.out_bias"]
    return bool(keys["model.bias"] if own is None else own)


def tied(default: bool) -> Key:
    """Whether the output matrix is the embedding."""
    return Key("tie_word_embeddings", "task.tie_embeddings", default)


def output(keys: Keys) -> Iterator[Pair]:
    """The output matrix, where it is one of its own."""
    if not keys["task.tie_embeddings"]:
        yield Pair("lm_head.weight", "head.weight")


KIND_OF_LABELS = Choice(
    "problem_type",
    {
        "single_label_classification": {"task.multi_label": False},
        "multi_label_classification": {"task.multi_label": True},
    },
    "single_label_classification",
)


def by_last_token(architecture: str) -> Head:
    """A decoder's classifier: an output matrix without a bias, that reads the last token."""
    options = {"task.pooling": "last", "task.transform": False, "task.head_bias": False}
    return Head(
        architecture,
        CLASSIFICATION,
        "classification",
        (Fixed(options), KIND_OF_LABELS, Ignored(("tie_word_embeddings",))),
        lambda keys: [Pair("score.weight", "head.out.weight")],
    )


# What most families call the sizes of a model.
SIZES = (
    Key("hidden_size", "model.dim"),
    Key("num_hidden_layers", "model.num_layers"),
    Key("num_attention_heads", "model.num_heads"),
    Key("intermediate_size", "feed_forward.hidden_dim"),
)
