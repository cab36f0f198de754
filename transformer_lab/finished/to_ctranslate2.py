"""Decoders and seq2seqs as CTranslate2 runs them (OpenNMT, github.com/OpenNMT/CTranslate2).

Its specifications are filled in from the parts themselves, not by its converter, which reads the folders of others and
takes no notice of some options (an epsilon, an activation, windows of some layers). Squared ReLU is relu(x) x there,
gated by itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.models.blocks import Block, PostNorm, PreNorm, SandwichNorm
from transformer_lab.models.layers.attention import Attention, CrossAttention
from transformer_lab.models.layers.feed_forward import GELU, FeedForward, GeGLU, ReLU, SiLU, SquaredReLU, SwiGLU
from transformer_lab.models.layers.norms import LayerNorm, RMSNorm
from transformer_lab.models.layers.positions.alibi import Alibi
from transformer_lab.models.layers.positions.learned import Learned
from transformer_lab.models.layers.positions.relative import RelativeBuckets
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.rotary_linear import RotaryLinear
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal
from transformer_lab.models.seq2seq import Seq2Seq
from transformer_lab.models.stack import Stack
from transformer_lab.tasks.language_modeling import LanguageModeling
from transformer_lab.tasks.translation import Translation

ROTARY = (Rotary, RotaryLinear)
POSITIONS = (*ROTARY, Alibi, Learned, Sinusoidal, RelativeBuckets)


def write(folder: Path, task: Any) -> None:
    """Put into a new folder model.bin, config.json and the vocabulary. Raises ValueError for what it has no option for;
    the tokenizer is not its matter."""
    refuse(task)
    tokenizer, model = task.tokenizer, task.model
    names = [tokenizer.reading.name(token) for token in range(tokenizer.vocab_size)]  # as in the tokenizer beside it
    spec = _seq2seq(task, names) if isinstance(model, Seq2Seq) else _decoder(task, names)
    config = spec.config
    config.layer_norm_epsilon = next(x.eps for x in model.modules() if isinstance(x, (RMSNorm, LayerNorm)))
    config.bos_token, config.eos_token = names[task.begin], names[task.end]
    config.unk_token = names[_unknown(tokenizer)]
    spec.validate()
    spec.optimize()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def _unknown(tokenizer: Tokenizer) -> int:
    found = tokenizer.unknown
    return tokenizer.special("<eos>") if found is None else found  # without one it does not load


def refuse(task: Any) -> None:
    """Raises ValueError where there is something in a model that it has no option for."""
    if not isinstance(task, (LanguageModeling, Translation)) or getattr(task, "joined", False):
        raise ValueError("format: ctranslate2 has language models, and translation by a seq2seq; onnx has the others")
    for why in _misfits(task.model):
        raise ValueError(f"format: ctranslate2 has no such model: {why}")


def _misfits(model: nn.Module) -> Iterator[str]:
    for stack in (module for module in model.modules() if isinstance(module, Stack)):
        if type(stack.position) not in POSITIONS:
            yield f"position is {type(stack.position).__name__}"
        if stack.local_position is not None:
            yield "position.local_base"
        if stack.width_ratio != 1:
            yield "model.mup"
        if stack.cross_position:
            yield "model.cross_position"
        if isinstance(model, Seq2Seq) and isinstance(stack.position, Alibi):
            yield "position=alibi in a seq2seq"
        pre_norm = not isinstance(stack.norm, nn.Identity)
        if pre_norm and not isinstance(stack.embedding_norm, nn.Identity):
            yield "model.embedding_norm without residual=post_norm"
        for block in stack.blocks:
            yield from _misfits_of(block)


def _misfits_of(block: Any) -> Iterator[str]:
    for residual in block.residuals:
        if type(residual) not in (PreNorm, PostNorm, SandwichNorm):
            yield f"residual is {type(residual).__name__}"
        if type(residual.norm) not in (RMSNorm, LayerNorm):
            yield f"norm is {type(residual.norm).__name__}"
        if isinstance(residual, SandwichNorm) and block.cross_attention is not None:
            yield "residual=sandwich_norm in a seq2seq"
    attention, feed_forward = block.attention.layer, block.feed_forward.layer
    if type(attention) is not Attention:
        yield f"mixer is {type(attention).__name__}"
    elif attention.window is not None:
        yield "model.window"
    elif isinstance(attention.query_norm, LayerNorm):
        yield "model.qk_norm with norm=layer"
    elif block.cross_attention is not None and not isinstance(attention.query_norm, nn.Identity):
        yield "model.qk_norm in a seq2seq"
    if type(feed_forward) not in (GELU, ReLU, SiLU, SquaredReLU, SwiGLU, GeGLU):
        yield f"feed_forward is {type(feed_forward).__name__}"


def _decoder(task: LanguageModeling, names: list[str]) -> Any:
    from ctranslate2.specs import transformer_spec

    model: Any = task.model
    options = _options(model)
    if isinstance(model.position, Alibi):
        options |= {"alibi": True, "alibi_use_positive_positions": True}
    inner = transformer_spec.TransformerDecoderSpec(
        len(model.blocks), _heads(model), with_encoder_attention=False, **options
    )
    spec = transformer_spec.TransformerDecoderModelSpec(inner)
    _fill_decoder(inner, model, task)
    spec.register_vocabulary(names)
    return spec


def _seq2seq(task: Translation, names: list[str]) -> Any:
    from ctranslate2.specs import transformer_spec

    model: Any = task.model
    options = _options(model.encoder)
    encoder = transformer_spec.TransformerEncoderSpec(len(model.encoder.blocks), _heads(model.encoder), **options)
    decoder = transformer_spec.TransformerDecoderSpec(len(model.decoder.blocks), _heads(model.decoder), **options)
    spec = transformer_spec.TransformerSpec(encoder, decoder)
    encoder.embeddings[0].weight = _array((model.source_embedding or model.embedding).weight)
    encoder.scale_embeddings = _scaled(model)
    _fill(encoder, model.encoder)
    _fill_decoder(decoder, model.decoder, task)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.decoder_start_token = names[task.begin]
    return spec


def _heads(stack: Any) -> int:
    layer = stack.blocks[0].attention.layer
    return int(layer.query.out_features // layer.head_dim)


def _options(stack: Any) -> dict[str, Any]:
    """Of its specifications, those that say of which kind a model is."""
    from ctranslate2.specs import attention_spec

    block: Any = stack.blocks[0]
    attention, position, norm = block.attention.layer, stack.position, block.attention.norm
    found = {
        "pre_norm": not isinstance(block.attention, PostNorm),
        "pre_post_layer_norm": isinstance(block.attention, SandwichNorm),
        "activation": _activation(block.feed_forward.layer),
        "ffn_glu": isinstance(block.feed_forward.layer, (SwiGLU, GeGLU, SquaredReLU)),
        "rms_norm": isinstance(norm, RMSNorm),
        "layernorm_embedding": not isinstance(stack.embedding_norm, nn.Identity),
        "relative_attention_bias": isinstance(position, RelativeBuckets),
        "num_heads_kv": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "qk_norm": not isinstance(attention.query_norm, nn.Identity),
    }
    if isinstance(position, ROTARY):
        found |= {"rotary_dim": attention.head_dim, "rotary_interleave": True, "rotary_base": position.base}
    if isinstance(position, RotaryLinear):
        linear = attention_spec.RotaryScalingType.Linear
        found |= {"rotary_scaling_type": linear, "rotary_scaling_factor": position.factor}
    return found


def _activation(layer: FeedForward) -> Any:
    from ctranslate2.specs.common_spec import Activation

    if isinstance(layer, (GELU, GeGLU)):
        return Activation.GELUTanh if layer.approximate == "tanh" else Activation.GELU
    return Activation.SWISH if isinstance(layer, (SiLU, SwiGLU)) else Activation.RELU


def _fill_decoder(spec: Any, stack: Any, task: Any) -> None:
    spec.embeddings.weight = _array(task.model.embedding.weight)
    spec.scale_embeddings = _scaled(task.model)
    spec.projection.weight = _array(task.head.matrix)
    if task.head.bias is not None:
        spec.projection.bias = _array(task.head.bias)
    _fill(spec, stack)


def _scaled(model: Any) -> Any:
    """What embeddings are multiplied by."""
    return bool(model.scale != 1)


def _fill(spec: Any, stack: Any) -> None:
    position = stack.position
    if isinstance(position, (Learned, Sinusoidal)):
        table = position.table.weight if isinstance(position, Learned) else position.table
        spec.position_encodings.encodings = _array(table)
    if not isinstance(stack.norm, nn.Identity):
        _norm(spec.layer_norm, stack.norm)
    if not isinstance(stack.embedding_norm, nn.Identity):
        _norm(spec.layernorm_embedding, stack.embedding_norm)
    for number, (layer, block) in enumerate(zip(spec.layer, stack.blocks, strict=True)):
        _fill_block(layer, block)
        if isinstance(position, RelativeBuckets):
            first = spec.layer[0].self_attention
            mine = layer.self_attention
            mine.relative_attention_bias = first.relative_attention_bias if number else _array(position.table.weight)
            mine.relative_attention_max_distance = np.dtype("int32").type(position.max_distance)


def _fill_block(spec: Any, block: Block) -> None:
    own: Any = block.attention
    feed_forward: Any = block.feed_forward
    if isinstance(own, SandwichNorm):
        _norm(spec.input_layer_norm, own.norm)
        _norm(spec.post_attention_layer_norm, own.outer_norm)
        _norm(spec.pre_feedforward_layer_norm, feed_forward.norm)
        _norm(spec.post_feedforward_layer_norm, feed_forward.outer_norm)
    else:
        _norm(spec.self_attention.layer_norm, own.norm)
        _norm(spec.ffn.layer_norm, feed_forward.norm)
    _attention(spec.self_attention, own.layer)
    if block.cross_attention is not None:
        _norm(spec.attention.layer_norm, block.cross_attention.norm)
        _attention(spec.attention, block.cross_attention.layer)
    layer = feed_forward.layer
    if isinstance(layer, SquaredReLU):
        _linear(spec.ffn.linear_0, layer.up)
        _linear(spec.ffn.linear_0_noact, layer.up)
    elif isinstance(layer, (SwiGLU, GeGLU)):
        _linear(spec.ffn.linear_0, layer.gate)
        _linear(spec.ffn.linear_0_noact, layer.up)
    else:
        _linear(spec.ffn.linear_0, layer.up)
    _linear(spec.ffn.linear_1, layer.down)


def _attention(spec: Any, layer: Any) -> None:
    parts = [layer.query, layer.key, layer.value]
    split = [[layer.query], [layer.key, layer.value]] if isinstance(layer, CrossAttention) else [parts]
    for linear, some in zip(spec.linear, [*split, [layer.out]], strict=True):
        _linear(linear, *some)
    if not isinstance(layer.query_norm, nn.Identity):
        _norm(spec.q_norm, layer.query_norm)
        _norm(spec.k_norm, layer.key_norm)


def _linear(spec: Any, *parts: nn.Linear) -> None:
    spec.weight = np.concatenate([_array(part.weight) for part in parts])
    if parts[0].bias is not None:
        spec.bias = np.concatenate([_array(part.bias) for part in parts])


def _norm(spec: Any, norm: Any) -> None:
    spec.gamma = _array(norm.weight)
    if isinstance(norm, LayerNorm):
        spec.beta = np.zeros_like(spec.gamma) if norm.bias is None else _array(norm.bias)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()
