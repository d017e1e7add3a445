"""The mechanism: run, kernel, trace and tape, each by small layers made for the test."""

import numpy as np
import pytest
from cases import EVERY_HEAD

import nezha_np as nz
from nezha_np import mechanism
from nezha_np.layers.addition import add
from nezha_np.layers.linear import linear
from nezha_np.mechanism import View, composite, gradient_of, primitive
from nezha_np.model.model import feed_forward


@primitive
def double(x):
    return 2.0 * x


@gradient_of(double)
def double_gradient(dy, y, x):
    return 2.0 * dy


@pytest.fixture
def weights():
    config = nz.NezhaConfig(
        vocab_size=5, hidden_size=4, num_attention_heads=2, num_hidden_layers=1, intermediate_size=3
    )
    return nz.init(config, dtype="float64")


@composite
def block(x, w):
    return add(linear(x, w["dense.weight"], w["dense.bias"]), double(x, name="twice"))


def test_a_layer_is_the_function_as_it_is_written():
    assert double(np.ones(1)).tolist() == [2.0]
    assert double.__name__ == "double" and double.definition(np.ones(1)).tolist() == [2.0]


def test_a_kernel_takes_the_place_of_its_definition_for_its_library_and_dtypes(monkeypatch):
    calls = []

    def kernel(x):
        calls.append(x)
        return np.full_like(x, 7.0)

    monkeypatch.setitem(mechanism.layer._kernels, np.ndarray, {double: (kernel, (np.dtype("float32"),))})
    assert double(np.ones(1, "float32")).tolist() == [7.0]
    assert double(np.ones(1, "float64")).tolist() == [2.0]
    with nz.definitions():
        assert double(np.ones(1, "float32")).tolist() == [2.0]
    with nz.trace():
        assert double(np.ones(1, "float32")).tolist() == [2.0]
    assert len(calls) == 1


def test_a_kernel_may_decline_and_may_replace_a_composite_whole(monkeypatch, weights):
    dtypes = (np.dtype("float64"),)
    x, view = np.ones((1, 4)), weights.at("pooler")
    plain = block(x, view)
    monkeypatch.setitem(mechanism.layer._kernels, np.ndarray, {block: (lambda x, w: NotImplemented, dtypes)})
    assert np.array_equal(block(x, view), plain)
    monkeypatch.setitem(mechanism.layer._kernels, np.ndarray, {block: (lambda x, w: x, dtypes)})
    assert block(x, view) is x


def test_a_name_is_scope_and_name_else_the_parameters_parent_else_scope_and_function(weights):
    with nz.trace() as t:
        y = block(np.ones((1, 4)), weights.at("pooler"))
    assert list(t) == ["pooler.dense", "pooler.twice", "pooler.add", "pooler"]
    assert t["pooler"] is y and t["pooler.add"] is y and len(t) == 4


# What stands under no name of ours: modules that hold a table, that hold both language heads, or that do nothing, and
# ConvBERT's separable convolution from inside, which is one layer here.
OTHERWISE = ("relative_positions_encoding", "distance_embedding", "cls", "dropout", ".depthwise", ".pointwise")


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_names_are_the_paths_of_the_references_modules_and_hold_what_these_return(family, head):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    own = {
        "nezha": {"max_relative_position": 2},
        "bert": {"position_embedding_type": "absolute" if head == "forward" else "relative_key_query"},
        "convbert": {"embedding_size": 6, "num_groups": 2, "conv_kernel_size": 3, "summary_use_proj": True},
    }[family]
    config = nz.families.family.FAMILIES[family].config(
        vocab_size=11,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=12,
        max_position_embeddings=9,
        is_decoder=head == "causal_lm",
        **own,
    )
    model, theirs = reference.reference_model(head, config, seed=1), {}

    def keep(name):
        def hook(module, arguments, result):
            result = result[0] if isinstance(result, tuple) else result
            if torch.is_tensor(result) and not isinstance(module, torch.nn.Identity):
                theirs[name] = result.numpy()

        return hook

    for path, module in model.named_modules():
        name = reference.our_name(path)
        if not name.endswith(OTHERWISE):
            module.register_forward_hook(keep(name))
    ids = np.array([[1, 2, 3, 4, 1], [5, 6, 7, 8, 9]])
    ids = ids[None] if head == "multiple_choice" else ids
    with torch.no_grad():
        model(torch.tensor(ids))
    with nz.trace() as t:
        getattr(nz, head)(reference.our_weights(model, config), ids)
    assert "encoder.layer.1.attention.self.query" in theirs
    for name, expected in theirs.items():
        if name.endswith("key_conv_attn_layer"):
            expected = expected.swapaxes(1, 2)  # which has the features before the tokens there
        if name.endswith("position_embeddings"):
            expected = np.broadcast_to(expected, t[name].shape)  # which has one row for the whole batch there
        np.testing.assert_allclose(t[name], expected, atol=1e-10, err_msg=name)


def test_a_trace_covers_one_pass(weights):
    with (
        pytest.raises(ValueError, match=r"embeddings.word_embeddings was recorded twice: a trace or a tape covers one"),
        nz.trace(),
    ):
        nz.forward(weights, [[1]])
        nz.forward(weights, [[2]])


def test_after_an_error_inside_a_trace_nothing_is_recorded_any_more(weights):
    with pytest.raises(ZeroDivisionError), nz.trace():
        raise ZeroDivisionError
    assert mechanism.recorder._active.get() is None


def test_a_float_array_that_no_layer_made_is_refused_by_the_tape(weights):
    @composite
    def lossy(x, w):
        return double(linear(x, w["dense.weight"]) * 2.0)

    def head(weights):
        return lossy(mechanism.constant(np.ones).__wrapped__((1, 4)), weights.at("pooler"))

    with pytest.raises(ValueError, match=r"linear in pooler\. got a float array that no layer made"):
        nz.value_and_grad(head)(weights)

    def second(weights):
        x = nz.layers.masks.as_constant(np.ones((1, 4)))
        return lossy(x, weights.at("pooler"))

    with pytest.raises(ValueError, match=r"double in pooler\. got a float array that no layer made"):
        nz.value_and_grad(second)(weights)


def test_a_float_array_given_by_keyword_is_refused_by_the_tape(weights):
    @composite
    def careless(x, w):
        return linear(x, w["dense.weight"], bias=w["dense.bias"])

    with pytest.raises(ValueError, match=r"linear in pooler\. got a float array by keyword"):
        nz.value_and_grad(lambda w: careless(nz.layers.masks.as_constant(np.ones((1, 4))), w.at("pooler")))(weights)


def test_a_layer_may_be_called_by_keyword_alone_where_nothing_is_recorded():
    assert double(x=np.ones(1)).tolist() == [2.0]


def test_a_loss_that_no_layer_made_is_refused(weights):
    def twice(weights):
        out = nz.masked_lm(weights, [[1]], labels=[[1]])
        return nz.model.heads.HeadOutput(2.0 * out.loss, out.logits)

    with pytest.raises(ValueError, match="expected a loss that a layer made"):
        nz.value_and_grad(twice)(weights)


def test_nothing_else_may_record_inside_a_trace_which_would_miss_it(weights):
    for inner in (nz.trace, nz.definitions):
        with pytest.raises(ValueError, match="expected none inside a trace"), nz.trace(), inner():
            pass
    with pytest.raises(ValueError, match="expected none inside a trace"), nz.trace():
        nz.value_and_grad(nz.masked_lm)(weights, [[1]], labels=[[1]])


def test_after_an_error_that_was_caught_the_scope_is_the_outer_one_again(weights):
    @composite
    def failing(x, w):
        raise ZeroDivisionError

    @composite
    def catching(x, w):
        try:
            failing(x, w.at("inner"))
        except ZeroDivisionError:
            return double(x)

    with nz.trace() as t:
        catching(np.ones(1), weights.at("outer"))
    assert list(t) == ["outer.double", "outer"]


def test_one_array_given_for_two_arguments_gets_a_gradient_for_each(weights):
    config = weights.config.replace(is_decoder=True, add_cross_attention=True)
    drawn = nz.init(config, dtype="float64")
    array = np.random.default_rng(0).normal(size=(1, 2, 4))
    function = nz.value_and_grad(nz.causal_lm, intermediates=True)
    labels = [[1, 2]]
    _, both = function(drawn, inputs_embeds=array, encoder_hidden_states=array, labels=labels)
    _, apart = function(drawn, inputs_embeds=array, encoder_hidden_states=array.copy(), labels=labels)
    for name in ("inputs_embeds", "encoder_hidden_states"):
        np.testing.assert_allclose(both[name], apart[name], atol=1e-15)


def test_the_gradient_by_a_head_mask_of_all_layers_is_the_sum_over_layers():
    config = nz.NezhaConfig(
        vocab_size=5, hidden_size=4, num_attention_heads=2, num_hidden_layers=2, intermediate_size=3
    )
    weights = nz.init(config, dtype="float64")
    function = nz.value_and_grad(nz.masked_lm, intermediates=True)
    _, one = function(weights, [[1, 2]], labels=[[1, 2]], head_mask=[0.5, 1.0])
    _, by_layer = function(weights, [[1, 2]], labels=[[1, 2]], head_mask=[[0.5, 1.0]] * 2)
    np.testing.assert_allclose(one["head_mask"], by_layer["head_mask.0"] + by_layer["head_mask.1"], atol=1e-15)


def test_a_primitive_without_a_gradient_is_named_when_the_walk_comes_to_it(weights):
    config = weights.config.replace(hidden_act=np.tanh)
    assert nz.masked_lm(weights, [[1]], config=config).logits.shape == (1, 1, 5)
    with pytest.raises(ValueError, match="tanh has no gradient"):
        nz.value_and_grad(nz.masked_lm)(weights, [[1]], labels=[[1]], config=config)


def test_gradients_by_intermediates_come_when_asked_for(weights):
    embeds = np.ones((1, 2, 4))
    labels = [[1, 2]]
    function = nz.value_and_grad(nz.masked_lm, intermediates=True)
    _, gradients = function(weights, inputs_embeds=embeds, labels=labels)
    with nz.definitions():  # by which intermediates are always made
        _, plain = nz.value_and_grad(nz.masked_lm)(weights, inputs_embeds=embeds, labels=labels)
    assert all(np.array_equal(gradients[name], plain[name]) for name in plain)
    assert gradients["loss"] == 1.0
    step = np.zeros_like(embeds)
    step[0, 1, 2] = 1e-6
    ends = [nz.masked_lm(weights, inputs_embeds=embeds + sign * step, labels=labels).loss for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradients["inputs_embeds"][0, 1, 2], rel=1e-5)
    assert gradients["encoder.layer.0.attention.self.probs"].shape == (1, 2, 2, 2)


def test_a_weight_that_is_used_twice_gets_the_sum_of_both_gradients(weights):
    table = weights["embeddings.word_embeddings.weight"]
    assert weights["cls.predictions.decoder.weight"] is table
    tied = nz.value_and_grad(nz.masked_lm)(weights, [[1, 2]], labels=[[1, 2]])[1]["embeddings.word_embeddings.weight"]
    apart = nz.Weights(
        {**weights, "cls.predictions.decoder.weight": table.copy()}, weights.config.replace(tie_word_embeddings=False)
    )
    gradients = nz.value_and_grad(nz.masked_lm)(apart, [[1, 2]], labels=[[1, 2]])[1]
    both = gradients["embeddings.word_embeddings.weight"] + gradients["cls.predictions.decoder.weight"]
    np.testing.assert_allclose(tied, both, atol=1e-15)


def test_a_view_carries_prefix_and_configuration(weights):
    view = weights.at("encoder.layer.0").at("attention.self")
    assert isinstance(view, View) and view.config is weights.config
    assert view["query.bias"] is weights["encoder.layer.0.attention.self.query.bias"]


def test_the_kernels_of_numpy_are_used_by_a_plain_forward_and_not_inside_definitions(monkeypatch):
    from nezha_np.kernels import numpy as kernels

    calls = []
    kernel, dtypes = kernels.KERNELS[feed_forward]
    monkeypatch.setitem(kernels.KERNELS, feed_forward, (lambda x, w: calls.append(1) or kernel(x, w), dtypes))
    nz.forward(nz.load(), [[2, 3]])
    assert len(calls) == 4
    with nz.definitions():
        nz.forward(nz.load(), [[2, 3]])
    assert len(calls) == 4
