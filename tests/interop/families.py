"""Published models of random shapes, of every class that has a task here."""

from tests.conftest import WORDS, settings
from transformer_lab.composition.build import build_task, task_class
from transformer_lab.interop.families import CLASSIFICATION, MLM_NSP
from transformer_lab.interop.published import FAMILIES

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
CLASSES = [(family, head) for family in FAMILIES for head in family.heads if head.task]
NAMES = [head.architecture for _, head in CLASSES]


def options_of(family, head, draw):
    """A config.json of random sizes and options, as keys of its class in transformers."""
    model_type = family.model_type
    heads, kv_heads = draw.choice([(1, 1), (2, 1), (4, 2), (4, 4), (6, 3)])
    dim, layers = heads * draw.choice([4, 8, 16]), draw.randint(1, 4)
    eps, flag = draw.choice([1e-12, 1e-6, 1e-5, 1e-3]), lambda: draw.random() < 0.5
    if model_type == "gpt2":
        sizes = {"n_embd": dim, "n_layer": layers, "n_head": heads, "n_positions": 64, "layer_norm_epsilon": eps}
        off = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
        wide, act = draw.choice([None, 3 * dim]), draw.choice(["gelu_new", "gelu", "relu"])
        return {**sizes, **off, "n_inner": wide, "activation_function": act, "tie_word_embeddings": flag()}
    if model_type == "t5":
        width = draw.choice([dim // heads, 6])
        sizes = {"d_model": dim, "num_layers": layers, "num_heads": heads, "d_kv": width, "d_ff": 3 * dim}
        sizes |= {"num_decoder_layers": draw.randint(1, 3), "layer_norm_epsilon": eps, "dropout_rate": 0.0}
        sizes |= {"relative_attention_num_buckets": draw.choice([8, 32]), "relative_attention_max_distance": 40}
        act = draw.choice(["relu", "relu2", "gated-gelu", "gated-gelu_python", "gated-silu"])
        scaled = flag()
        more = {"tie_word_embeddings": scaled, "scale_decoder_outputs": scaled, "pad_token_id": None}
        return {**sizes, **more, "feed_forward_proj": act, "decoder_start_token_id": 0}
    if model_type == "mpt":
        return {"d_model": dim, "n_layers": layers, "n_heads": heads, "layer_norm_epsilon": eps}
    if model_type == "marian":
        sizes = {"d_model": dim, "encoder_layers": layers, "decoder_layers": draw.randint(1, 3), "pad_token_id": 0}
        sizes |= {f"{side}_attention_heads": heads for side in ("encoder", "decoder")}
        sizes |= {f"{side}_ffn_dim": 3 * dim for side in ("encoder", "decoder")}
        sizes |= {"max_position_embeddings": 64, "scale_embedding": flag(), "dropout": 0.0}
        act = draw.choice(["swish", "relu", "gelu", "gelu_new"])
        return {**sizes, "activation_function": act, "decoder_start_token_id": 0}
    sizes = {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 3 * dim,
    }
    sizes["max_position_embeddings"] = 64
    if model_type in ("bert", "roberta", "xlm-roberta"):
        kinds, act = draw.randint(1, 3), "gelu" if head.task == MLM_NSP else draw.choice(["gelu", "gelu_new", "relu"])
        pad = None if model_type == "bert" else 1
        return {**sizes, "type_vocab_size": kinds, "layer_norm_eps": eps, "hidden_act": act, "pad_token_id": pad}
    if model_type == "modernbert":
        every = draw.randint(1, layers)
        kinds = ["full_attention" if i % every == 0 else "sliding_attention" for i in range(layers)]
        theta = {kind: draw.choice([100.0, 10_000.0, 160_000.0]) for kind in ("full_attention", "sliding_attention")}
        rope = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in theta.items()}
        tokens = dict.fromkeys(["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 0)
        more = {"classifier_pooling": draw.choice(["cls", "mean"])} if head.task == CLASSIFICATION else {}
        more |= {"norm_eps": eps, "layer_types": kinds, "pad_token_id": None, "rope_parameters": rope}
        return {**sizes, **more, **tokens, **({"local_attention": 2 * draw.randint(1, 9)} if every > 1 else {})}
    sizes |= {"num_key_value_heads": kv_heads, "rms_norm_eps": eps, "tie_word_embeddings": flag(), "pad_token_id": None}
    theta, factor = draw.choice([100.0, 10_000.0, 5e5]), draw.choice([1.5, 4.0])
    rope = draw.choice(
        [
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": factor},
            {"rope_type": "llama3", "factor": factor, "original_max_position_embeddings": 40} | LLAMA3,
            {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 64},
        ]
    )
    sizes["rope_parameters"] = {**rope, "rope_theta": theta}
    if model_type != "qwen2":
        sizes["head_dim"] = draw.choice([dim // heads, 12])
    match model_type:
        case "llama" | "arcee":
            sizes |= {"attention_bias": flag(), "mlp_bias": flag()}
        case "gemma3_text":
            every, width = draw.randint(1, 3), sizes["head_dim"]
            kinds = ["full_attention" if i % every == every - 1 else "sliding_attention" for i in range(layers)]
            kind = draw.choice([{"rope_type": "default"}, {"rope_type": "linear", "factor": factor}])
            near = {"rope_type": "default", "rope_theta": draw.choice([100.0, 10_000.0])}
            rope = {"full_attention": {**kind, "rope_theta": theta}, "sliding_attention": near}
            sizes |= {"rope_parameters": rope, "layer_types": kinds, "query_pre_attn_scalar": width}
            sizes |= {"attention_bias": flag(), "sliding_window": draw.randint(1, 9)}
        case "mistral":
            sizes |= {"sliding_window": draw.randint(1, 9)}  # without a window it is a Llama
        case "qwen2" | "qwen3":
            every = draw.choice([0, 1, 2, 3])
            windows = every > 0 and layers >= every
            kinds = [
                "full_attention" if not windows or (every > 1 and i % every == 0) else "sliding_attention"
                for i in range(layers)
            ]
            sizes |= {"use_sliding_window": windows} | ({"attention_bias": flag()} if model_type == "qwen3" else {})
            sizes |= {"sliding_window": 5, "layer_types": kinds}
        case "apertus":
            sizes |= {"attention_bias": flag(), "hidden_act": draw.choice(["relu2", "xielu"])}
    return sizes


def config_from(keys, head):
    """The config that our keys of a config.json make."""
    config = settings(f"task={head.name}", "task.context=32")
    for key, value in keys.items():
        section, _, name = key.partition(".")
        if name == "_target_":
            config[section] = {"_target_": value}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        config[section][name] = value
    return config


def task_from(keys, head):
    config = config_from(keys, head)
    return build_task(config, WORDS, task_class(config).stand_in)
