"""Published models come in, and models trained here go out: what is written is read back, and nothing is dropped."""

import json
import pickle
import random
import re

import pytest
import tokenizers
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import CELLS, SMALL, WORDS, settings, small_task
from tests.interop.families import CLASSES, NAMES, config_from, options_of, task_from
from tests.programs import call
from transformer_lab.composition.build import build_task
from transformer_lab.composition.configs import CONFIGS
from transformer_lab.data.examples import Pair
from transformer_lab.data.store import corpus_of
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.finished.loaded_run import evaluate_file, evaluate_run, load_run
from transformer_lab.interop.families import CALLED, CLASSIFICATION
from transformer_lab.interop.options import Theirs
from transformer_lab.interop.published import FAMILIES, published
from transformer_lab.interop.reading import weights_of
from transformer_lab.interop.vocabulary import tokenizer_of
from transformer_lab.interop.writing import held, write
from transformer_lab.run.transfer import start_from

SHAPES = [*range(8), *(pytest.param(seed, marks=pytest.mark.battery) for seed in range(8, 20))]


def random_task(family, head, seed):
    draw = random.Random(seed)
    values = options_of(family, head, draw) | {"model_type": family.model_type, "architectures": [head.architecture]}
    keys = family.inward(Theirs(values, "config.json"), head)
    torch.manual_seed(seed)
    task = task_from(keys, head)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter)
    return values, keys, config_from(keys, head), task


@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=NAMES)
def test_what_is_written_is_read_back(family, head, seed, tmp_path):
    _, keys, config, task = random_task(family, head, seed)
    write(tmp_path / "out", held(config, task), task)
    found = published(tmp_path / "out")
    leaves_as = "bert" if "roberta" in family.model_type else family.model_type
    assert (found.family.model_type, found.head.task) == (leaves_as, head.task)
    given = {key: value for key, value in keys.items() if value is not None}
    assert {key: value for key, value in found.keys.items() if key in given} == given
    weights = weights_of(found)
    assert weights.keys() == task.state_dict().keys()
    for name, tensor in task.state_dict().items():
        if family.model_type in ("t5", "gemma3_text"):  # some of their tensors are multiples of ours, or one less
            torch.testing.assert_close(weights[name], tensor, rtol=1e-6, atol=1e-7 * (family.model_type != "t5"))
        else:
            assert torch.equal(weights[name], tensor), name


# What a config.json may say that is not written: what does not matter to a finished model.
DROPPED = (
    {"dropout_rate", "dropout"}
    | {f"{name}_pdrop" for name in ("resid", "embd", "attn")}
    | {f"{name}_token_id" for name in ("pad", "cls", "sep", "bos", "eos")}
)


@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=NAMES)
def test_what_is_read_is_written_again(family, head, seed, tmp_path):
    values, _, config, task = random_task(family, head, seed)
    write(tmp_path / "out", held(config, task), task)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    windows = "sliding_attention" in values.get("layer_types", ["sliding_attention"])
    other = set() if windows else {"sliding_window"}
    if "roberta" in family.model_type:  # leaves as a BERT
        other |= {"model_type", "architectures", "max_position_embeddings"}
    if head.task == CLASSIFICATION:
        other |= {"tie_word_embeddings"}
    for key in values.keys() - DROPPED - other:
        if values[key] is not None:
            found = written.get(key, (["full_attention"] * 9)[: len(values[key])] if key == "layer_types" else None)
            assert found == values[key], key


@pytest.fixture
def folder(published_folder):
    return published_folder


def changed(folder, **values):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def test_an_older_config_json_means_the_same(folder):
    keys = published(folder).keys
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    changed(
        folder, rope_parameters=..., rope_theta=rope["rope_theta"], rope_scaling=None, dtype=..., torch_dtype="bfloat16"
    )
    assert published(folder).keys == keys
    changed(folder, rope_scaling={"type": "linear", "factor": 2.0})
    assert published(folder).keys["position._target_"].endswith("RotaryLinear")
    changed(folder, num_key_value_heads=..., head_dim=...)
    assert published(folder).keys["model.num_kv_heads"] is None


def test_tensors_are_found_by_older_names_and_in_several_files(folder):
    weights = weights_of(published(folder))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors = {name.removeprefix("model."): tensor.bfloat16() for name, tensor in tensors.items()}
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in files.items():
        save_file({name: tensors[name].contiguous() for name in some}, folder / file)
    index = {"weight_map": {name: file for file, some in files.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = weights_of(published(folder))
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor.bfloat16().float()) and found[name].dtype == torch.float32


def test_a_prompt_begins_as_the_tokenizer_of_a_published_model_has_it(folder):
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    save_file({name: torch.randn_like(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    task = load_run(str(folder), []).task
    opened = task.predict(["ab"], temperature=0.0, max_new_tokens=8)
    assert task.opens_prompts  # as it was trained here
    said = json.loads((folder / "tokenizer.json").read_text())
    said["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(said))
    bare = load_run(str(folder), []).task
    assert bare.predict(["ab"], temperature=0.0, max_new_tokens=8) != opened
    again = load_run(str(folder), [], {"opens_prompts": True}).task
    assert again.predict(["ab"], temperature=0.0, max_new_tokens=8) == opened


def test_a_text_begins_as_the_tokenizer_of_a_published_model_has_it(folder):
    assert load_run(str(folder), []).task.begin == load_run(str(folder), []).task.end
    made = json.loads((folder / "tokenizer.json").read_text())
    template = {"SpecialToken": {"id": "<sep>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    known = {"<sep>": {"id": "<sep>", "ids": [2], "tokens": ["<sep>"]}}
    made["post_processor"] |= {"single": template, "special_tokens": known}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    task = load_run(str(folder), []).task
    assert task.begin == task.tokenizer.special("<sep>") != task.end


def test_norms_of_old_berts_are_called_gamma_and_beta(tmp_path):
    family, head = next(one for one, name in zip(CLASSES, NAMES, strict=True) if name == "BertForMaskedLM")
    _, _, config, task = random_task(family, head, 0)
    write(tmp_path / "bert", held(config, task), task)
    file = tmp_path / "bert" / "model.safetensors"
    olden = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {re.sub("|".join(olden), lambda m: olden[m[0]], name): x for name, x in load_file(file).items()}
    assert any("gamma" in name for name in tensors)
    save_file(tensors | {"bert.embeddings.position_ids": torch.arange(64)}, file)
    weights = weights_of(published(tmp_path / "bert"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in task.state_dict().items())


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_act": "gelu_fast"}, "hidden_act: gelu_fast has no option here; silu, swish has"),
        ({"head_dim": 0}, "head_dim: 0 is no number above 0"),
        (
            {"rope_parameters": {"rope_type": "longrope", "factor": 8.0}},
            "rope_type: longrope has no option here; default, ",
        ),
        ({"logit_softcap": 30.0}, "logit_softcap: 30.0 has no option here"),
        ({"model_type": "mamba"}, "model_type: mamba is not known here"),
        ({"hidden_size": ...}, "there is no hidden_size"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5 has no option here; 1.0 has"),
        ({"rope_parameters": YARN | {"attention_factor": 1.0}}, "attention_factor: 1.0 has no option here"),
        ({"rope_parameters": YARN | {"factor": "x"}}, "rope_parameters: factor: x is no number"),
        ({"rope_parameters": {"rope_type": ["linear"]}}, "rope_type: ['linear'] has no option here"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["full_attention"]},
            "layer_types: not a list",
        ),
        (
            {"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "rope_parameters": {"full_attention": "x"}},
            "x is no object",
        ),
    ],
)
def test_what_has_no_option_here_is_refused_by_its_name(folder, values, said):
    changed(folder, **values)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        published(folder)
    assert str(folder / "config.json") in str(error.value)


GPT2 = [
    "position=learned",
    "position.max_length=64",
    "norm=layer",
    "feed_forward=gelu",
    "model.qk_norm=false",
    "model.bias=true",
]
BERT = [*GPT2, "residual=post_norm", "model.embedding_norm=true", "model.token_types=2"]
EXPORTED = {
    "language_modeling": [*GPT2, "task.tie_embeddings=true"],
    "classification": [*BERT, "task.pooling=pooler"],
    "classification-multi_label": [*BERT, "task.pooling=pooler"],
    "mlm_nsp": BERT,
    "mlm": BERT,
    "translation": ["position=relative", "model.qk_norm=false", "model.scale_embedding=true"],
}


@pytest.mark.parametrize("cell", EXPORTED)
def test_an_exported_run_predicts_as_the_run_does(cell, tmp_path):
    words = [*CELLS[cell], *EXPORTED[cell], "model.num_heads=2", "feed_forward.hidden_dim=64"]
    task, config = small_task(*words), settings(*SMALL, *words)
    write(tmp_path / "out", held(config, task), task)
    loaded = load_run(str(tmp_path / "out"), [])
    line = "a text with a <mask> in it"
    options = {"temperature": 0.0, "max_new_tokens": 8} if cell == "language_modeling" else {}
    assert loaded.task.predict([line], **options) == task.predict([line], **options)


def test_a_published_body_is_where_another_task_starts(folder, caplog):
    import transformer_lab as tl

    config = tl.config("task=classification", "model=decoder", init_from=str(folder))
    assert config["model"]["dim"] == 32
    assert config["feed_forward"]["_target_"].endswith("SwiGLU")
    assert config["model"]["qk_norm"] is False
    wider = tl.config("task=classification", "model=decoder", "model.num_layers=1", init_from=str(folder))
    assert wider["model"]["num_layers"] == 1
    task = build_task(config, WORDS, {"labels": {"a": 1, "b": 1}})
    start_from(str(folder), task, config)
    weights = weights_of(published(folder))
    assert torch.equal(
        task.model.blocks[1].attention.layer.query.weight, weights["model.blocks.1.attention.layer.query.weight"]
    )


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without(name):
    def change(folder):
        file = folder / "model.safetensors"
        save_file({key: x for key, x in load_file(file).items() if key != name}, file)

    return change


def with_tensor(name, tensor):
    def change(folder):
        file = folder / "model.safetensors"
        save_file(load_file(file) | {name: tensor}, file)

    return change


def index(weight_map):
    def change(folder):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def renamed(name, to):
    return lambda folder: (folder / name).rename(folder / to)


def gone(name):
    return lambda folder: (folder / name).unlink()


BROKEN = {
    "no weights": (gone("model.safetensors"), "there is no model.safetensors"),
    "a file that Python would unpickle": (renamed("model.safetensors", "pytorch_model.bin"), "save_pretrained"),
    "half a file": (cut, "not a safetensors file"),
    "text in place of weights": (text("model.safetensors", "weights"), "not a safetensors file"),
    "a tensor less": (without("model.layers.1.mlp.up_proj.weight"), "no tensor model.layers.1.mlp.up_proj.weight"),
    "no embedding": (without("model.embed_tokens.weight"), "no tensor model.embed_tokens.weight"),
    "a tensor more": (with_tensor("model.layers.1.mlp.up_proj.bias", torch.ones(96)), "has no place"),
    "a layer more": (with_tensor("model.layers.2.mlp.up_proj.weight", torch.ones(96, 32)), "has no place"),
    "another width": (with_tensor("model.norm.weight", torch.ones(33)), "33"),
    "a norm that is a matrix": (with_tensor("model.norm.weight", torch.ones(32, 2)), "32 x 2"),
    "another vocabulary": (with_tensor("model.embed_tokens.weight", torch.ones(9, 32)), "9 x 32"),
    "an index that leads out": (index({"model.norm.weight": "../a.safetensors"}), "leads out"),
    "an index of an absolute path": (index({"model.norm.weight": "/etc/passwd"}), "leads out"),
    "an index of a file that is not there": (index({"model.norm.weight": "b.safetensors"}), "b.safetensors is missing"),
    "an index of numbers": (index({"model.norm.weight": 3}), "no weight_map"),
    "an index of nothing": (index([]), "no weight_map"),
    "an index that is no JSON": (
        lambda folder: (index({})(folder), text("model.safetensors.index.json", "{")(folder)),
        "not JSON",
    ),
    "a config of a list": (text("config.json", "[]"), "not a JSON object"),
    "a config of half a word": (text("config.json", '{"model_type": "ll'), "not JSON"),
    "a config that is nested without end": (text("config.json", "[" * 100_000), "not JSON"),
    "a config of a model without a type": (text("config.json", "{}"), "model_type"),
    "a config without a width": (lambda folder: changed(folder, hidden_size=...), "hidden_size"),
    "a width of a word": (lambda folder: changed(folder, hidden_size="wide"), "hidden_size"),
    "a width of nothing": (lambda folder: changed(folder, hidden_size=0), "hidden_size"),
    "a negative number of layers": (lambda folder: changed(folder, num_hidden_layers=-1), "model.num_layers"),
    "a million layers": (lambda folder: changed(folder, num_hidden_layers=1_000_000), "num_layers"),
    "heads that do not divide": (lambda folder: changed(folder, num_attention_heads=5, head_dim=...), "num_heads"),
    "an epsilon of a list": (lambda folder: changed(folder, rms_norm_eps=[1]), "eps"),
    "architectures of a number": (lambda folder: changed(folder, architectures=7), "architectures: 7 is no name"),
    "more positions than there is memory for": (
        lambda folder: changed(folder, max_position_embeddings=10**12),
        "of memory",
    ),
    "rope of a word": (lambda folder: changed(folder, rope_parameters="fast"), "rope_parameters"),
    "a pickle that is named safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps({"model.norm.weight": [1.0]})),
        "not a safetensors file",
    ),
    "a tokenizer of another size": (lambda folder: changed(folder, vocab_size=100), "and its config.json 100"),
    "a vocabulary of a word": (lambda folder: changed(folder, vocab_size="many"), "and its config.json many"),
    "positions that turn backwards": (
        lambda folder: changed(folder, rope_parameters={"rope_type": "default", "rope_theta": -1.0}),
        "position.base",
    ),
    "keys that heads cannot share": (lambda folder: changed(folder, num_key_value_heads=3), "num_kv_heads"),
    "special tokens of a list": (text("special_tokens_map.json", "[]"), "not a JSON object"),
    "no tokenizer": (gone("tokenizer.json"), "no tokenizer.json"),
    "a tokenizer of half a word": (text("tokenizer.json", '{"model'), "not a tokenizer.json"),
    "a tokenizer config of a list": (text("tokenizer_config.json", "[]"), "not a JSON object"),
    "a tokenizer without an end": (
        lambda folder: (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("<eos>", "<stop>")
        ),
        "<eos>",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_told_in_one_line(what, folder):
    change, said = BROKEN[what]
    change(folder)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load_run(str(folder), [])
    assert "\n" not in str(error.value)


def test_an_option_of_the_task_that_does_not_exist_is_told(folder):
    with pytest.raises(ValueError, match=r"task.beam_siz: no such option of LanguageModeling"):
        load_run(str(folder), [], {"beam_siz": 4})


def test_a_published_model_is_scored_on_what_is_named(folder, tmp_path):
    run = load_run(str(folder), [])
    with pytest.raises(ValueError, match="none of its own"):
        evaluate_run(run, "test", "cpu")
    (tmp_path / "text.txt").write_text("some words of a text\n" * 40)
    run.config["cache_dir"] = str(tmp_path / "cache")
    assert 0 < evaluate_file(run, str(tmp_path / "text.txt"), "cpu").metrics["loss"] < 100


def test_every_family_has_a_body_at_its_end_and_a_name_of_its_own():
    assert len({family.model_type for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.heads[-1].task is None


TEXTS = ["Déjà vu, it's  1234567", "東京 is ½ [MASK] of <s> a", "tab\tand\nline", " don't 'unaffable' re-reading ", ""]


def without_tokenizer_json(folder, vocab_size, **said):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    changed(folder, vocab_size=vocab_size)
    return tokenizer_of(published(folder))


@pytest.mark.parametrize("said", [{}, {"do_lower_case": False}, {"tokenize_chinese_chars": False}], ids=str)
def test_a_vocab_txt_is_word_piece(folder, said):
    letters = [letter for letter in "abcdefghijklmnopqrstuvwxyzDé1234567½東京'-," for letter in (letter, f"##{letter}")]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, "un", "##aff", "##able", "read", "##ing"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    theirs = tokenizers.BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=said.get("do_lower_case", True),
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
    )
    theirs._tokenizer.encode_special_tokens = True
    found = without_tokenizer_json(folder, len(pieces) + 3, **said)
    for text in TEXTS:
        assert found.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert (found.special("<cls>"), found.special("<mask>"), found.vocab_size) == (2, 4, len(pieces) + 3)


def test_a_vocab_json_with_its_merges_is_byte_level_bpe(folder):
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(TEXTS * 4, vocab_size=300, special_tokens=["<s>", "</s>", "<mask>"], show_progress=False)
    theirs.save_model(str(folder))
    theirs._tokenizer.encode_special_tokens = True
    found = without_tokenizer_json(folder, theirs.get_vocab_size())
    for text in TEXTS:
        assert found.encode(text) == theirs.encode(text).ids and found.decode(found.encode(text)) == text
    assert (found.special("<cls>"), found.special("<sep>"), found.special("<mask>")) == (0, 1, 2)


@pytest.mark.parametrize(
    "files, said",
    [
        ({"vocab.json": "[]", "merges.txt": "a b"}, "its lists of tokens cannot be read"),
        ({"vocab.json": "{}"}, "there is no tokenizer.json"),
        ({"spiece.model": ""}, "spiece.model is not read here; where transformers and sentencepiece are installed"),
    ],
    ids=str,
)
def test_a_folder_without_a_tokenizer_says_what_would_make_one(folder, files, said):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        without_tokenizer_json(folder, 300)
    assert "\n" not in str(error.value)


def test_a_folder_of_sentence_transformers_says_where_its_model_lies_and_what_makes_a_vector(folder, tmp_path):
    whole = tmp_path / "sentences"
    (whole / "1_Pooling").mkdir(parents=True)
    body = folder.rename(whole / "0_Transformer")
    changed(body, architectures=["LlamaModel"])
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (whole / "modules.json").write_text(json.dumps(modules))
    (whole / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    found = published(whole)
    assert (found.folder, found.sections["task"]["pooling"]) == (body, "mean")
    done = call("train.py", "task=classification", "model=decoder", f"init_from={whole}", "--cfg", "job", cwd=tmp_path)
    assert "pooling: mean" in done.stdout, done.stderr
    modules[0]["path"] = "../llama"
    (whole / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="leads out of the folder"):
        published(whole)


def test_classes_are_called_as_the_options_that_name_them():
    found = {}
    for file in CONFIGS.glob("*/*.yaml"):
        target = yaml.safe_load(file.read_text()).get("_target_")
        found[target] = file.stem
    assert {target: found[target] for target in CALLED} == CALLED


SIDES = {
    "source": ["a small dog runs", "two men sit on a bench", "the dog has a ball", "men run, dogs sit"],
    "target": ["ein kleiner Hund rennt", "zwei Männer sitzen auf einer Bank", "der Hund hat einen Ball"],
}


@pytest.fixture
def opus(tmp_path):
    """A small Marian with the two models of OPUS-MT's tokenizers, and what these make of a text."""
    sentencepiece = pytest.importorskip("sentencepiece")
    family = next(family for family in FAMILIES if family.model_type == "marian")
    _, _, config, task = random_task(family, family.heads[0], 0)
    write(tmp_path / "opus", held(config, task), task)
    readers, names = {}, ["</s>", "<unk>"]
    for side, texts in SIDES.items():
        prefix = tmp_path / "opus" / side
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 5),
            model_prefix=str(prefix),
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        prefix.with_suffix(".model").rename(prefix.with_suffix(".spm"))
        readers[side] = sentencepiece.SentencePieceProcessor(model_file=str(prefix.with_suffix(".spm")))
        names += [piece for i in range(3, len(readers[side])) if (piece := readers[side].id_to_piece(i)) not in names]
    names += [f"extra{number}" for number in range(task.tokenizer.vocab_size - len(names) - 2)] + [">>deu<<", "<pad>"]
    ids = {name: number for number, name in enumerate(names)}
    (tmp_path / "opus" / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "opus" / "tokenizer.json").unlink()
    (tmp_path / "opus" / "tokenizer_config.json").write_text("{}")
    changed(tmp_path / "opus", decoder_start_token_id=len(names) - 1)

    def pieces(side, text):
        return [ids.get(piece, 1) for piece in readers[side].encode(text, out_type=str)]

    return tmp_path / "opus", pieces


def test_each_language_of_opus_mt_has_pieces_of_its_own(opus):
    folder, pieces = opus
    tokenizer = tokenizer_of(published(folder))
    for text in (*SIDES["source"], "  the  ball ", "a 東京 dog", ""):
        assert tokenizer.reading.encode(text) == pieces("source", text)
    for text in (*SIDES["target"], "  der  Ball ", "ein 東京 Hund", ""):
        assert tokenizer.encode(text) == pieces("target", text)
    assert 0 not in tokenizer.reading.encode("a </s> dog")
    told = tokenizer.reading.encode(">>deu<< a dog")
    assert tokenizer.name(told[0]) == ">>deu<<" and told[1:] == pieces("source", "a dog")
    assert tokenizer.decode(tokenizer.encode("der Hund")) == "der Hund"
    assert (tokenizer.special("<eos>"), tokenizer.name(tokenizer.special("<bos>"))) == (0, "<pad>")
    again = Tokenizer.from_json(tokenizer.json)
    assert again.reading.encode("the dog") == pieces("source", "the dog") and again.hash == tokenizer.hash


def test_a_translation_goes_on_from_opus_mt_with_both_of_its_models(opus, tmp_path):
    folder, pieces = opus
    pairs = list(zip(*SIDES.values(), strict=False))
    rows = [f"{one} {number}\t{other}" for one, other in pairs for number in range(40)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["en\tde", *rows]))
    data = ["data=parallel", "data.path=pairs.tsv", "data.source=en", "data.target=de", "allow_overlap=true"]
    words = ["task=translation", f"init_from={folder}", "max_steps=2", "tokens_per_step=128", "run_dir=run", *data]
    done = call("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    task = load_run(str(tmp_path / "run"), []).task
    assert task.tokenizer.reading.encode("a small dog") == pieces("source", "a small dog")
    corpus = corpus_of([Pair("the dog", "der Hund")], task.tokenizer, task.encoding)
    assert corpus["source"][0].tolist() == pieces("source", "the dog")
    assert corpus["target"][0].tolist() == pieces("target", "der Hund")
    assert task.predict(["a small dog"])[0]["translation"] is not None


def test_a_decoder_that_classifies_is_asked_only_where_its_texts_end_as_here(tmp_path):
    family = next(family for family in FAMILIES if family.model_type == "llama")
    head = next(head for head in family.heads if head.task == CLASSIFICATION)
    _, _, config, task = random_task(family, head, 0)
    folder = tmp_path / "judge"
    write(folder, held(config, task), task)
    asked = load_run(str(folder), []).task.predict(["ab"])[0]["probabilities"]
    expected = task.eval().predict(["ab"])[0]["probabilities"]
    assert list(asked.values()) == pytest.approx(list(expected.values()), abs=1e-5)
    said = json.loads((folder / "tokenizer.json").read_text())
    said["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="reads other ends of a text"):
        load_run(str(folder), [])


def test_what_is_not_to_be_written_is_not(opus):
    folder, _ = opus
    changed(folder, bad_words_ids=[[7], [1, 2]])
    weights = weights_of(published(folder))
    assert weights["head.bias"].argmin() == 7 and (weights["head.bias"] < -50).sum() == 1


def test_another_way_to_part_words_is_not_taken_for_gpt2s(folder):
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")
    with pytest.raises(ValueError, match="the words of a Qwen2Tokenizer are parted in a way"):
        without_tokenizer_json(folder, 300, tokenizer_class="Qwen2TokenizerFast")
