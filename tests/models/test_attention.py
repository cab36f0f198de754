"""Attention as a reader believes in it, for every position scheme and every kernel that runs on a CPU."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import POSITIONS, VOCABULARY, small_task
from transformer_lab.layout import Layout
from transformer_lab.models.layers.attention import Memory
from transformer_lab.models.layers.kernels import auto, flex, groups, matmul, reference, sdpa

KERNELS = {"auto": auto, "reference": reference, "sdpa": sdpa, "matmul": matmul}
VARIANTS = {
    "plain": [],
    "window": ["model.window=5"],
    "grouped": ["model.num_kv_heads=2"],
    "documents": ["task.packing=documents", "model.qk_norm=false"],
}
LENGTHS = [7, 1, 20, 7, 13]


def hidden(task, tokens, lengths):
    return task.model(tokens, Layout.of(lengths))


def random_tokens(lengths, seed=0):
    return torch.randint(VOCABULARY, (sum(lengths),), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", POSITIONS)
def test_the_future_cannot_change_the_past_nor_one_sequence_another(position, kernel, variant):
    task = small_task(f"position={position}", f"attention={kernel}", *VARIANTS[variant])
    tokens = random_tokens(LENGTHS)
    start, place = sum(LENGTHS[:2]), 9  # the tenth token of the third sequence
    changed = tokens.clone()
    changed[start + place] = (changed[start + place] + 1) % VOCABULARY
    before, after = hidden(task, tokens, LENGTHS), hidden(task, changed, LENGTHS)
    moved = (before != after).any(dim=-1)
    assert moved[start + place]
    assert not moved[: start + place].any()  # exactly: what comes before, and the sequences in front
    assert not moved[start + LENGTHS[2] :].any()  # the sequences behind


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("task, seen", [([], (0, 5)), (["task=mlm_nsp"], (4, 5))], ids=["decoder", "encoder"])
def test_a_window_is_how_far_a_token_sees(task, seen, kernel):
    model = small_task(*task, "model.num_layers=1", "model.window=5", f"attention={kernel}").model
    tokens, place = random_tokens([30]), 15
    changed = tokens.clone()
    changed[place] = (changed[place] + 1) % VOCABULARY
    moved = (model(tokens, Layout.of([30])) != model(changed, Layout.of([30]))).any(dim=-1)
    before, after = seen
    assert moved.nonzero().squeeze(1).tolist() == list(range(place - before, place + after))


@pytest.mark.parametrize("first, windows", [(0, [None, 5, None, 5, None]), (1, [5, None, 5, None, 5])])
def test_of_layers_with_a_window_every_so_many_see_everything_from_one_of_the_first_on(first, windows):
    model = small_task(
        "model.num_layers=5", "model.window=5", "model.global_every=2", f"model.global_first={first}"
    ).model
    assert [block.attention.layer.window for block in model.blocks] == windows


@pytest.mark.parametrize("task", [["task=classification"], [], ["task=translation"]], ids=str)
def test_heads_may_be_of_another_width_and_the_output_without_a_bias(task):
    model = small_task(*task, "model.num_heads=3", "model.head_dim=6", "model.bias=true", "model.out_bias=false").model
    attention = [module for module in model.modules() if hasattr(module, "query_norm")]
    assert attention and all(layer.query.out_features == layer.out.in_features == 18 for layer in attention)
    assert all(layer.value.bias is not None and layer.out.bias is None for layer in attention)


@pytest.mark.parametrize("words, ordered", [([], False), (["model.cross_position=true"], True)])
def test_a_text_that_is_looked_at_has_an_order_where_positions_count_across_texts(words, ordered):
    model = small_task("task=translation", *words).model
    block = model.decoder.blocks[0].cross_attention.layer
    draw = torch.Generator().manual_seed(0)
    x, hidden = torch.randn(4, model.dim, generator=draw), torch.randn(6, model.dim, generator=draw)
    position = model.decoder.position if model.decoder.cross_position else None
    one, other = (
        block(x, Layout.of([4]), position, Memory(memory, Layout.of([6]))) for memory in (hidden, hidden.flip(0))
    )
    assert torch.allclose(one, other, atol=1e-5) is not ordered


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", POSITIONS)
def test_no_gradient_flows_from_the_past_to_the_future(position, kernel):
    task = small_task(f"position={position}", f"attention={kernel}")
    tokens = random_tokens(LENGTHS)
    embedded = {}
    task.model.embedding.register_forward_hook(lambda _, __, out: embedded.update(x=out.retain_grad() or out))
    start, place = sum(LENGTHS[:2]), 9
    hidden(task, tokens, LENGTHS)[start + place].sum().backward()
    touched = (embedded["x"].grad != 0).any(dim=-1)
    assert touched[start : start + place + 1].all()
    assert not touched[:start].any() and not touched[start + place + 1 :].any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_sequence_alone_is_the_sequence_in_any_pack(position, variant):
    task = small_task(f"position={position}", *VARIANTS[variant])
    for seed, lengths in enumerate(([20, 3, 20], [5, 20, 64, 1], [20] * 5)):
        tokens = random_tokens(lengths, seed)
        packed = hidden(task, tokens, lengths).split(lengths)
        for part, alone in zip(tokens.split(lengths), packed, strict=True):
            torch.testing.assert_close(hidden(task, part, [len(part)]), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("position", POSITIONS)
def test_kernels_agree_in_value_and_gradient(position, variant):
    results = {}
    for kernel in KERNELS:
        task = small_task(f"position={position}", f"attention={kernel}", *VARIANTS[variant])
        out = hidden(task, random_tokens(LENGTHS), LENGTHS)
        (out.sin().sum()).backward()
        results[kernel] = out, task.model.blocks[0].attention.layer.key.weight.grad
    for out, grad in results.values():
        torch.testing.assert_close(out, results["reference"][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(grad, results["reference"][1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("position", POSITIONS)
def test_flex_agrees_with_the_reference(position, variant):
    """PyTorch runs it on a CPU without gradients only."""
    task = small_task(f"position={position}", *VARIANTS[variant])
    with torch.no_grad():
        expected = hidden(task, random_tokens(LENGTHS), LENGTHS)
        for block in task.model.blocks:
            block.attention.layer.kernel = flex.attend
        torch.testing.assert_close(hidden(task, random_tokens(LENGTHS), LENGTHS), expected, atol=1e-5, rtol=0)


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=6),
    kind=st.sampled_from([(True, False), (True, True), (False, True), (False, False)]),
    window=st.none() | st.integers(1, 600),
)
def test_the_tiles_of_flex_leave_out_no_pair_and_take_only_visible_ones_without_looking(lengths, kind, window):
    """… and hold no tile in vain, but at the border of a window."""
    causal, same = kind
    queries = Layout.of([q for q, _ in lengths])
    keys = queries if same or causal else Layout.of([k for _, k in lengths])
    window = window if same or causal else None
    keep = reference.visible(queries.positions, keys.positions, causal, window)
    keep &= queries.sequence[:, None] == keys.sequence
    more = [-n % flex.TILE for n in keep.shape]
    pieces = torch.nn.functional.pad(keep, (0, more[1], 0, more[0])).unflatten(1, (-1, flex.TILE))
    pieces = pieces.unflatten(0, (-1, flex.TILE)).transpose(1, 2)  # (Q, K, 128, 128)
    some, every = flex.tiles(queries, keys, causal, window)
    assert (every == pieces.all(-1).all(-1)).all()
    visible = pieces.any(-1).any(-1)
    assert (some >= visible).all() and (window is not None or (some == visible).all())


@pytest.mark.parametrize("causal, same", [(True, True), (False, True), (False, False)])
@hypothesis_settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=8)
    | st.lists(st.tuples(st.integers(38, 42), st.integers(38, 42)), min_size=2, max_size=5),  # regrouped together
    window=st.none() | st.integers(1, 12),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    kernel=st.sampled_from([sdpa, matmul]),
    size=st.sampled_from(["whole", "pieces"]),
    biased=st.booleans(),
)
def test_kernels_agree_with_the_reference_on_any_layout(causal, same, lengths, window, heads, kernel, size, biased):
    """Also where queries and keys are different texts, as in cross-attention; windows and biases only within one text.
    Also where scores are worked out piece by piece, and groups are as small as they can be."""
    queries = Layout.of([q for q, _ in lengths])
    keys = queries if same else Layout.of([k for _, k in lengths])
    window = window if same else None
    draw = torch.Generator().manual_seed(len(lengths))
    q = torch.randn(len(queries.positions), heads[0], 8, generator=draw)
    k, v = (torch.randn(len(keys.positions), heads[1], 8, generator=draw) for _ in range(2))
    table = torch.randn(heads[0], 101, generator=draw)
    rules = {"queries": queries, "keys": keys, "causal": causal, "window": window}
    with pytest.MonkeyPatch.context() as patch:
        if size == "pieces":
            patch.setattr(matmul, "SCORES_OF_A_CALL", 0)
            patch.setattr(matmul, "SCORES_AT_ONCE", 1 << 10)
            patch.setattr(matmul, "QUERIES_AT_ONCE", {True: 4, False: 8})
        found, expected = (
            _with_gradients(
                each.attend,
                q,
                k,
                v,
                table,
                weight=torch.rand(q.shape, generator=draw.manual_seed(0)),
                biased=biased and same,
                **rules,
            )
            for each in (kernel, reference)
        )
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1:], expected[1:], atol=1e-5, rtol=1e-5)  # sums, some of them large


def _with_gradients(attend, q, k, v, table, weight, biased=True, **rules):
    """What a kernel gives, and the gradients of its weighted sum; the bias of two positions stands in a table."""
    inputs = [x.clone().requires_grad_() for x in (q, k, v, table)[: 4 if biased else 3]]
    bias = (lambda one, other: inputs[3][:, one[:, None] - other + 50]) if biased else lambda *_: None
    mixed = attend(*inputs[:3], bias=bias, **rules)
    return [mixed.detach(), *torch.autograd.grad((mixed * weight).sum(), inputs)]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("lengths", [[256] * 3, [300, 7, 31, 290, 30, 9]], ids=["one length", "many"])
def test_in_bf16_the_products_kernel_is_off_by_no_more_than_twice_what_rounding_its_inputs_does(lengths, causal):
    layout, draw = Layout.of(lengths), torch.Generator().manual_seed(0)
    q, k, v, weight = torch.randn(4, sum(lengths), 4, 32, generator=draw, dtype=torch.float64)
    rules = {"queries": layout, "keys": layout, "causal": causal, "window": None, "biased": False}
    exact = _with_gradients(reference.attend, q, k, v, None, weight=weight, **rules)
    rounded = [x.bfloat16() for x in (q, k, v, weight)]
    floor = _with_gradients(reference.attend, *(x.double() for x in rounded[:3]), None, rounded[3].double(), **rules)
    found = _with_gradients(matmul.attend, *rounded[:3], None, rounded[3], **rules)
    for one, least, right in zip(found, floor, exact, strict=True):
        assert (one.double() - right).norm() <= 2 * (least - right).norm()


def test_regrouping_computes_hardly_more_than_is_there():
    """With itself, and across two texts whose lengths go together only roughly, like those of a translation."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 40, (130,), generator=draw)
    others = (lengths + torch.randint(-6, 7, (130,), generator=draw)).clamp(min=1)
    for keys, calls in ((lengths, 25), (others, 75)):
        found = groups.regroup(Layout.of(lengths), Layout.of(keys))
        assert sum(found.queries.sizes) < 1.05 * int(lengths.sum())
        assert sum(found.keys.sizes) < 1.05 * int(keys.sum())
        assert len(found.allowed) < calls


def test_where_a_call_costs_much_groups_are_fewer_and_have_no_more_padding_than_it_is_worth():
    draw = torch.Generator().manual_seed(0)
    lengths, spared = torch.randint(5, 40, (130,), generator=draw), 5_000
    few, many = (groups.regroup(Layout.of(lengths), Layout.of(lengths), cost) for cost in (spared, 0))
    assert 2 * len(few.allowed) < len(many.allowed)
    padding = sum(few.queries.sizes) - int(lengths.sum())
    assert padding < 0.05 * int(lengths.sum()) + sum(spared / length for length in few.queries.lengths)


def test_attention_weights_are_shares():
    layout = Layout.of([3, 4])
    q = torch.randn(7, 2, 8)
    rules = {"queries": layout, "keys": layout, "causal": True, "window": None, "bias": lambda *_: None}
    share = reference.weights(q, q, **rules)
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 7))
    assert (share[:, :3, 3:] == 0).all() and (share[:, 3:, :3] == 0).all()


def test_auto_takes_the_kernel_that_serves_device_precision_and_bias():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert auto.choose(cpu, torch.float32, 32, biased=True, plain=False) == "sdpa"
    assert auto.choose(cpu, torch.bfloat16, 32, biased=True, plain=False) == "matmul"
    assert auto.choose(cuda, torch.bfloat16, 32, biased=False, plain=False) == "varlen"
    assert auto.choose(cuda, torch.bfloat16, 32, biased=False, plain=True) == "sdpa"
    assert auto.choose(cuda, torch.float32, 32, biased=False, plain=False) == "sdpa"
    assert auto.choose(cuda, torch.bfloat16, 32, biased=True, plain=True) == "flex"
    # Widths of heads that those do not serve.
    assert auto.choose(cuda, torch.bfloat16, 10, biased=False, plain=False) == "sdpa"
    assert auto.choose(cuda, torch.bfloat16, 8, biased=True, plain=True) == "sdpa"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("position", POSITIONS)
def test_cuda_kernels_agree_with_the_reference(position, variant):
    from transformer_lab.models.layers.kernels import varlen

    task = small_task(f"position={position}", "model.dim=64", *VARIANTS[variant]).cuda().bfloat16()
    tokens, layout = random_tokens(LENGTHS).cuda(), Layout.of(LENGTHS).to("cuda")
    outs = {}
    for name, kernel in {"reference": reference, "sdpa": sdpa, "flex": flex, "varlen": varlen}.items():
        if name == "varlen" and position in ("alibi", "relative"):
            continue
        for block in task.model.blocks:
            block.attention.layer.kernel = kernel.attend
        outs[name] = task.model(tokens, layout)
    for out in outs.values():
        torch.testing.assert_close(out, outs["reference"], atol=5e-2, rtol=5e-2)
