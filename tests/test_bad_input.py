"""What is refused, and what works: for every argument of every function that computes, as tables.

A wrong type is a TypeError, a wrong shape, value or combination a ValueError. The message names the argument, what was
expected, and what came. A row of a table reads: what is wrong, the error, what was expected, what came, the argument.
"""

import functools
import itertools
import re

import array_api_strict
import numpy as np
import pytest
from cases import EVERY_HEAD, EVERY_LABELLED_HEAD, FAMILIES, NO_DECODER

import nezha_np as nz
from nezha_np.arrays import to_numpy
from nezha_np.families.parameters import task_shapes

torch = pytest.importorskip("torch", reason="a user may hand over PyTorch's tensors")

DEVICE = array_api_strict.Device("device1")  # the GPU's stand-in

SIZES = {
    "vocab_size": 11,
    "num_hidden_layers": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 5,
    "num_labels": 3,
}
HEADS = {"hidden_size": 8, "num_attention_heads": 2}  # N = 2, D = 4
CONFIGS = {
    "nezha": nz.NezhaConfig(**SIZES, **HEADS, max_relative_position=3),
    "bert": nz.BertConfig(**SIZES, **HEADS),
    "convbert": nz.ConvBertConfig(  # two heads and two convolutions, and words of 8 features too
        **SIZES, hidden_size=16, num_attention_heads=4, head_ratio=2, embedding_size=8, conv_kernel_size=3
    ),
}
CONFIG = CONFIGS["nezha"]
RELATIVE = CONFIGS["bert"].replace(position_embedding_type="relative_key")
DECODERS = {family: CONFIGS[family].replace(is_decoder=True) for family in ("nezha", "bert")}
DECODER = DECODERS["nezha"]
CROSS = DECODER.replace(add_cross_attention=True)
ANY_CONFIG = "a NezhaConfig, a BertConfig or a ConvBertConfig"
IDS = [[2, 3, 4], [5, 6, 3]]  # B = 2, L = 3
CHOICES = [[[2, 3, 4], [5, 6, 3]]] * 2  # B = 2, C = 2, L = 3
EMBEDS = np.linspace(-1.0, 1.0, 2 * 3 * 8).reshape(2, 3, 8)  # (B, L, E)
EVERY_HEAD_OF_A_TEXT = [(family, head) for family, head in EVERY_HEAD if head != "multiple_choice"]
EVERY_DECODER = [(family, head) for family in DECODERS for head in ("forward", "masked_lm", "causal_lm")]


@functools.cache
def weights_for(head="forward", config=CONFIG):
    if head == "causal_lm" and not config.is_decoder:
        config = config.replace(is_decoder=True)
    return nz.init(config, head=None if head == "forward" else head, dtype="float64")


def strict(array, device=DEVICE):
    return array_api_strict.asarray(np.asarray(array), device=device)


@functools.cache
def strict_weights(head="forward", config=CONFIG):
    tensors = weights_for(head, config)
    return nz.Weights({name: strict(array) for name, array in tensors.items()}, tensors.config)


def refuses(error, expected, got, argument):
    """Expect an error whose message names the argument, what was expected, and what came."""
    parts = (re.escape(part) for part in (argument, expected, got))
    return pytest.raises(error, match="(?s)^{}[.a-z_0-9]*: expected .*{}.*got .*{}".format(*parts))


def bad(what, error, expected, got, **arguments):
    """Make a row: the first of the arguments is the wrong one, others go with it."""
    return pytest.param(error, expected, got, arguments, id=f"{next(iter(arguments))}: {what}")


def works(what, plain, **arguments):
    """Make a row of what works: the arguments have the same result as the plain ones."""
    return pytest.param(plain, arguments, id=f"{next(iter(arguments))}: {what}")


DEALT = ("family", "head", "error", "expected", "got", "arguments")


def deal(rows, heads):
    """Give each row to one of the heads in turn, and to every head the first row of each argument.

    All heads hand these arguments on to one function that checks them, so that every row with every head would prove
    no more.
    """
    dealt, seen = [], set()
    for row, one in zip(rows, itertools.cycle(heads)):
        argument = next(iter(row.values[-1]))
        for family, head in heads if argument not in seen else [one]:
            dealt.append(pytest.param(family, head, *row.values, id=f"{family}-{head}-{row.id}"))
        seen.add(argument)
    return dealt


def refused(function, weights, error, expected, got, arguments, **others):
    with refuses(error, expected, got, next(iter(arguments))):
        function(weights, **others | arguments)


def assert_equal(one, other):
    for name, value in vars(one).items():
        expected = getattr(other, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, expected)
        else:
            assert value is None and expected is None, name


# ------------------------------------------------------------------------------------- what forward and all heads take

ANY = "shape (any, any)"
ONES = np.full((2, 3), 1.0)

INPUTS = [
    # ids
    bad("none, and no embeddings", ValueError, "either input_ids or inputs_embeds", "neither", input_ids=None),
    bad("embeddings too", ValueError, "either input_ids or inputs_embeds", "both", input_ids=IDS, inputs_embeds=EMBEDS),
    bad("no axis for the batch", ValueError, ANY, "(3,): add an axis for the batch", input_ids=[2, 3, 4]),
    bad("an array with no axis for the batch", ValueError, ANY, "(3,): add an axis", input_ids=np.array([2, 3, 4])),
    bad("a number", ValueError, ANY, "()", input_ids=2),
    bad("a NumPy number", ValueError, ANY, "()", input_ids=np.int64(2)),
    bad("an array without axes", ValueError, ANY, "()", input_ids=np.array(2)),
    bad("three axes", ValueError, ANY, "(2, 2, 3)", input_ids=CHOICES),
    bad("an empty list", ValueError, ANY, "(0,)", input_ids=[]),
    bad("a text without tokens", ValueError, ANY, "(1, 0): nothing in it", input_ids=[[]]),
    bad("no texts", ValueError, ANY, "(0, 3): nothing in it", input_ids=np.zeros((0, 3), np.int64)),
    bad("lists of different lengths", ValueError, "rows of the same length", "different", input_ids=[[2, 3], [4]]),
    bad("a list beside a number", ValueError, "rows of the same length", "different", input_ids=[[2, 3], 4]),
    bad("a text", TypeError, "an array or lists of numbers", "str", input_ids="房间"),
    bad("bytes", TypeError, "an array or lists of numbers", "bytes", input_ids=b"23"),
    bad("lists of texts", TypeError, "numbers in the lists", "str", input_ids=[["2", "3"]]),
    bad("None in a list", TypeError, "numbers in the lists", "NoneType", input_ids=[[2, None]]),
    bad("a set in a list", TypeError, "numbers in the lists", "set", input_ids=[[2, {3}]]),
    bad("a dict", TypeError, "an array or lists of numbers", "dict", input_ids={"input_ids": IDS}),
    bad("a generator", TypeError, "an array or lists of numbers", "generator", input_ids=(row for row in IDS)),
    bad("floats", TypeError, "integers", "float64", input_ids=[[2.0, 3.0]]),
    bad("booleans", TypeError, "integers", "bool", input_ids=[[True, False]]),
    bad("complex numbers", TypeError, "integers", "complex128", input_ids=[[2j]]),
    bad("an array of objects", TypeError, "integers", "object", input_ids=np.array(IDS, dtype=object)),
    bad("dates", TypeError, "integers", "datetime64", input_ids=np.array([["2020-01-01"]], dtype="datetime64[D]")),
    bad("an id below 0", ValueError, "values from 0 to 10", "-1", input_ids=[[2, -1]]),
    bad("an ignored label", ValueError, "values from 0 to 10", "-100", input_ids=[[2, -100]]),
    bad("an id beyond the vocabulary", ValueError, "values from 0 to 10", "11", input_ids=[[2, 11]]),
    bad("an id beyond the vocabulary in uint8", ValueError, "0 to 10", "200", input_ids=np.array([[200]], np.uint8)),
    bad("an id of 64 bits", ValueError, "values from 0 to 10", str(2**63), input_ids=[[2**63]]),
    bad("an id of more than 64 bits", ValueError, "numbers of 64 bits", str(2**64), input_ids=[[2, 2**64]]),
    bad(
        "PyTorch's",
        TypeError,
        "lists or numpy arrays",
        "torch.Tensor of torch.int64",
        input_ids=torch.tensor(IDS),
    ),
    bad("another library's", TypeError, "numpy arrays", "array_api_strict.Array of", input_ids=strict(IDS)),
    bad("a list of a device's arrays", ValueError, "rows", "no numbers", input_ids=[strict(row) for row in IDS]),
    # embeddings in their place
    bad("lists", TypeError, "a float array of numpy", "list", inputs_embeds=EMBEDS.tolist(), input_ids=None),
    bad("a number", TypeError, "a float array of numpy", "float", inputs_embeds=1.0, input_ids=None),
    bad("integers", TypeError, "a float array", "of int64", inputs_embeds=EMBEDS.astype(np.int64), input_ids=None),
    bad("complex numbers", TypeError, "a float array", "of complex128", inputs_embeds=EMBEDS + 0j, input_ids=None),
    bad("PyTorch's", TypeError, "numpy", "torch.Tensor", inputs_embeds=torch.tensor(EMBEDS), input_ids=None),
    bad(
        "another library's", TypeError, "numpy", "array_api_strict.Array", inputs_embeds=strict(EMBEDS), input_ids=None
    ),
    bad("another width", ValueError, "(any, any, 8)", "(2, 3, 7)", inputs_embeds=EMBEDS[..., :7], input_ids=None),
    bad("one text", ValueError, "(any, any, 8)", "(3, 8)", inputs_embeds=EMBEDS[0], input_ids=None),
    bad("no tokens", ValueError, "(any, any, 8)", "(2, 0, 8)", inputs_embeds=EMBEDS[:, :0], input_ids=None),
    # the attention mask
    bad("one axis", ValueError, "shape (2, 3)", "(3,)", attention_mask=[1, 1, 0]),
    bad("another batch", ValueError, "shape (2, 3)", "(1, 3)", attention_mask=[[1, 1, 0]]),
    bad("another length", ValueError, "shape (2, 3)", "(2, 4)", attention_mask=np.ones((2, 4))),
    bad("three axes of wrong sizes", ValueError, "shape (2, 3, 3)", "(2, 1, 3)", attention_mask=np.ones((2, 1, 3))),
    bad("four axes", ValueError, "shape (2, 3)", "(2, 1, 3, 3)", attention_mask=np.ones((2, 1, 3, 3))),
    bad("no axis", ValueError, "shape (2, 3)", "()", attention_mask=1),
    bad("empty lists", ValueError, "shape (2, 3)", "(2, 0)", attention_mask=[[], []]),
    bad("lists of different lengths", ValueError, "rows", "lists of different", attention_mask=[[1, 1, 1], [1]]),
    bad("additive", ValueError, "values from 0 (left out) to 1", "-10000.0", attention_mask=[[0, 0, -1e4]] * 2),
    bad("more than 1", ValueError, "values from 0 (left out) to 1", "2", attention_mask=[[1, 1, 2]] * 2),
    bad("NaN", ValueError, "values from 0 (left out) to 1", "nan", attention_mask=np.nan * ONES),
    bad("an infinity", ValueError, "values from 0 (left out) to 1", "inf", attention_mask=np.inf * ONES),
    bad("a text", TypeError, "an array or lists of numbers", "str", attention_mask="110"),
    bad("lists of texts", TypeError, "numbers", "str", attention_mask=[["1", "1", "0"]] * 2),
    bad("None in a list", TypeError, "numbers", "NoneType", attention_mask=[[1, 1, None]] * 2),
    bad("complex numbers", TypeError, "real numbers", "complex128", attention_mask=ONES + 0j),
    bad("True", ValueError, "shape (2, 3)", "()", attention_mask=True),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", attention_mask=torch.ones(2, 3)),
    bad("another library's", TypeError, "numpy arrays", "array_api_strict.Array", attention_mask=strict(ONES)),
    # token types
    bad("one axis", ValueError, "shape (2, 3)", "(3,)", token_type_ids=[0, 0, 1]),
    bad("another length", ValueError, "shape (2, 3)", "(2, 2)", token_type_ids=[[0, 0]] * 2),
    bad("another batch", ValueError, "shape (2, 3)", "(3, 3)", token_type_ids=[[0, 0, 1]] * 3),
    bad("a type too many", ValueError, "values from 0 to 1", "2", token_type_ids=[[0, 1, 2]] * 2),
    bad("below 0", ValueError, "values from 0 to 1", "-1", token_type_ids=[[0, 0, -1]] * 2),
    bad("floats", TypeError, "integers", "float64", token_type_ids=0.0 * ONES),
    bad("booleans", TypeError, "integers", "bool", token_type_ids=[[False, False, True]] * 2),
    bad("a text", TypeError, "an array or lists of numbers", "str", token_type_ids="001"),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", token_type_ids=torch.zeros(2, 3, dtype=torch.int64)),
    # the head mask
    bad("a head too many", ValueError, "shape (2,)", "(3,)", head_mask=[1, 0, 1]),
    bad("a layer too many", ValueError, "shape (2, 2)", "(3, 2)", head_mask=np.ones((3, 2))),
    bad("for each text", ValueError, "shape (2,)", "(2, 2, 2)", head_mask=np.ones((2, 2, 2))),
    bad("a number", ValueError, "shape (2,)", "()", head_mask=1.0),
    bad("empty", ValueError, "shape (2,)", "(0,)", head_mask=[]),
    bad("None for each layer", TypeError, "numbers", "NoneType", head_mask=[None, None]),
    bad("texts", TypeError, "numbers", "str", head_mask=["1", "0"]),
    bad("complex numbers", TypeError, "real numbers", "complex128", head_mask=[1j, 0]),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", head_mask=torch.ones(2)),
    # switches
    bad("a number", TypeError, "True, False or None", "1", use_cache=1),
    bad("a text", TypeError, "True, False or None", "'no'", use_cache="no"),
    bad("a number", TypeError, "True, False or None", "1", output_attentions=1),
    bad("a list", TypeError, "True, False or None", "[]", output_attentions=[]),
    bad("a text", TypeError, "True, False or None", "'all'", output_hidden_states="all"),
    bad("an array", TypeError, "True, False or None", "array", output_hidden_states=np.ones(2)),
    # the configuration
    bad("a dict", TypeError, ANY_CONFIG, "dict", config=CONFIG.to_dict()),
    bad("a class", TypeError, ANY_CONFIG, "type", config=nz.NezhaConfig),
    bad("a text", TypeError, ANY_CONFIG, "str", config="config.json"),
]


@pytest.mark.parametrize(
    ("family", "head", "error", "expected", "got", "arguments"), deal(INPUTS, EVERY_HEAD_OF_A_TEXT)
)
def test_inputs_are_refused_by_every_head(family, head, error, expected, got, arguments):
    weights = weights_for(head, CONFIGS[family])
    refused(getattr(nz, head), weights, error, expected, got, arguments, **{"input_ids": IDS} | arguments)


INPUTS_THAT_WORK = [
    works("tuples", {}, input_ids=tuple(map(tuple, IDS))),
    works("ranges", {"input_ids": [[2, 3, 4]]}, input_ids=[range(2, 5)]),
    works("a list of arrays", {}, input_ids=[np.array(row) for row in IDS]),
    *(
        works(dtype, {}, input_ids=np.array(IDS, dtype))
        for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4")
    ),
    works("not contiguous", {}, input_ids=np.array(IDS).T.copy().T),
    works("one token", {"input_ids": [[2]]}, input_ids=np.array([[2]])),
    works("float32 in a float64 model", {"inputs_embeds": EMBEDS // 1}, inputs_embeds=(EMBEDS // 1).astype("float32")),
    works("everything", {}, attention_mask=np.ones((2, 3))),
    works("booleans", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=[[True, True, False]] * 2),
    works("a boolean array", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=np.array([[True, True, False]] * 2)),
    works("float16", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=np.array([[1, 1, 0]] * 2, "float16")),
    works("uint8", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=np.array([[1, 1, 0]] * 2, "uint8")),
    works("parts", {"attention_mask": [[1, 0.5, 0]] * 2}, attention_mask=np.array([[1, 0.5, 0]] * 2)),
    works("for each query", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=[[[1, 1, 0]] * 3] * 2),
    works(
        "booleans for each query", {"attention_mask": [[1, 1, 0]] * 2}, attention_mask=[[[True, True, False]] * 3] * 2
    ),
    works("all 0", {}, token_type_ids=np.zeros((2, 3), "int8")),
    works("uint64", {"token_type_ids": [[0, 1, 1]] * 2}, token_type_ids=np.array([[0, 1, 1]] * 2, "uint64")),
    works("all 1", {}, head_mask=[1, 1]),
    works("booleans", {"head_mask": [1, 0]}, head_mask=[True, False]),
    works("integers for each layer", {"head_mask": [0.0, 1.0]}, head_mask=np.array([[0, 1], [0, 1]])),
    works("more than 1, and less than 0", {"head_mask": [2.0, -1.0]}, head_mask=[2, -1]),
    works("None", {}, output_attentions=None),
    works("a NumPy boolean", {}, output_hidden_states=np.False_),
    works("an encoder has none", {}, use_cache=False),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("plain", "arguments"), INPUTS_THAT_WORK)
def test_inputs_of_other_types_work(family, plain, arguments):
    ids = {} if "inputs_embeds" in arguments else {"input_ids": IDS}
    weights = weights_for(config=CONFIGS[family])
    assert_equal(nz.forward(weights, **ids | arguments), nz.forward(weights, **ids | plain))


@pytest.mark.parametrize("family", FAMILIES)
def test_another_configuration_that_fits_the_weights_works(family):
    config = CONFIGS[family]
    weights = weights_for(config=config)
    expected = nz.forward(weights, IDS)
    for same in (config.replace(), config.replace(hidden_dropout_prob=0.5)):
        assert_equal(nz.forward(weights, IDS, config=same), expected)


@pytest.mark.parametrize("family", DECODERS)
def test_an_encoder_has_no_cache_to_use(family):
    weights = weights_for(config=CONFIGS[family])
    assert_equal(nz.forward(weights, IDS, use_cache=True), nz.forward(weights, IDS))


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_an_unknown_argument_is_refused(family, head):
    function, weights = getattr(nz, head), weights_for(head, CONFIGS[family])
    ids = CHOICES if head == "multiple_choice" else IDS
    with pytest.raises(TypeError, match="'attention_masks'"):
        function(weights, ids, attention_masks=[[1, 1, 1]] * 2)
    with pytest.raises(TypeError, match="'pooled'"):
        function(weights, ids, pooled=True)
    with pytest.raises(TypeError, match="'next_sentence_labels'"):
        function(weights, ids, next_sentence_labels=[0, 1])
    with pytest.raises(TypeError, match="positional"):  # a mask in the place of an option
        function(weights, ids, [[1, 1, 1]] * 2)


def test_forward_has_no_labels():
    with pytest.raises(TypeError, match="'labels'"):
        nz.forward(weights_for(), IDS, labels=IDS)


# -------------------------------------------------------------------------------------------------- where tokens stand

LEARNED = {family: CONFIGS[family] for family in ("bert", "convbert")}
EVERY_LEARNED_HEAD = [(family, head) for family, head in EVERY_HEAD_OF_A_TEXT if family in LEARNED]
POSITIONS = "values from 0 to 4"

POSITION_IDS = [
    bad("one axis", ValueError, "shape (2, 3)", "(3,)", position_ids=[0, 1, 2]),
    bad("no axis", ValueError, "shape (2, 3)", "()", position_ids=0),
    bad("three axes", ValueError, "shape (2, 3)", "(2, 1, 3)", position_ids=[[[0, 1, 2]]] * 2),
    bad("another length", ValueError, "shape (2, 3)", "(2, 2)", position_ids=[[0, 1]] * 2),
    bad("one row of another length", ValueError, "shape (1, 3)", "(1, 4)", position_ids=[[0, 1, 2, 3]]),
    bad("another batch", ValueError, "shape (2, 3)", "(3, 3)", position_ids=[[0, 1, 2]] * 3),
    bad("empty", ValueError, "shape (2, 3)", "(0,)", position_ids=[]),
    bad("no rows", ValueError, "shape (2, 3)", "(0, 3)", position_ids=np.zeros((0, 3), np.int64)),
    bad("lists of different lengths", ValueError, "rows of the same length", "lists", position_ids=[[0, 1, 2], [0]]),
    bad("a position too far", ValueError, POSITIONS, "5", position_ids=[[0, 1, 5]] * 2),
    bad("a position too far for all", ValueError, POSITIONS, "7", position_ids=[[0, 1, 7]]),
    bad("below 0", ValueError, POSITIONS, "-1", position_ids=[[0, 1, -1]] * 2),
    bad("the row of padding in RoBERTa", ValueError, POSITIONS, "5", position_ids=np.arange(3, 6)[None]),
    bad("floats", TypeError, "integers", "float64", position_ids=0.0 * ONES),
    bad("booleans", TypeError, "integers", "bool", position_ids=[[False, True, False]] * 2),
    bad("complex numbers", TypeError, "integers", "complex128", position_ids=0j * ONES),
    bad("a text", TypeError, "an array or lists of numbers", "str", position_ids="012"),
    bad("texts", TypeError, "numbers in the lists", "str", position_ids=[["0", "1", "2"]] * 2),
    bad("None in a list", TypeError, "numbers in the lists", "NoneType", position_ids=[[0, 1, None]] * 2),
    bad("a dict", TypeError, "an array or lists of numbers", "dict", position_ids={0: [0, 1, 2]}),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", position_ids=torch.arange(3)[None]),
    bad("another library's", TypeError, "numpy arrays", "array_api_strict.Array", position_ids=strict([[0, 1, 2]])),
]


@pytest.mark.parametrize(
    ("family", "head", "error", "expected", "got", "arguments"), deal(POSITION_IDS, EVERY_LEARNED_HEAD)
)
def test_positions_are_refused(family, head, error, expected, got, arguments):
    refused(getattr(nz, head), weights_for(head, LEARNED[family]), error, expected, got, arguments, input_ids=IDS)


@pytest.mark.parametrize("family", LEARNED)
@pytest.mark.parametrize(
    ("plain", "arguments"),
    [
        works("those that are meant anyway", {}, position_ids=[[0, 1, 2]] * 2),
        works("one row for the whole batch", {}, position_ids=[[0, 1, 2]]),
        works("a list of an array", {}, position_ids=[np.arange(3)]),
        works("another row for the batch", {"position_ids": [[4, 0, 0]] * 2}, position_ids=np.array([[4, 0, 0]])),
        works("uint8", {"position_ids": [[0, 1, 2], [2, 3, 4]]}, position_ids=np.uint8([[0, 1, 2], [2, 3, 4]])),
        works("big-endian", {"position_ids": [[2, 3, 4]]}, position_ids=np.array([[2, 3, 4]], ">i2")),
        works("none", {}, position_ids=None),
    ],
)
def test_positions_of_other_types_work(family, plain, arguments):
    weights = weights_for(config=LEARNED[family])
    assert_equal(nz.forward(weights, IDS, **arguments), nz.forward(weights, IDS, **plain))
    for ids in ([[2, 3, 4]], np.array([[2, 3, 4]])):  # a batch of one
        assert_equal(
            nz.forward(weights, ids, position_ids=[[2, 0, 1]]),
            nz.forward(weights, ids, position_ids=np.array([[2, 0, 1]], np.int8)),
        )


@pytest.mark.parametrize("config", [CONFIG, RELATIVE], ids=["nezha", "relative bert"])
@pytest.mark.parametrize("head", [head for family, head in EVERY_HEAD_OF_A_TEXT if family == "bert"])
def test_positions_are_refused_where_they_are_relative(config, head):
    weights, because = weights_for(head, config), f"this {config.model_type} model's positions are relative"
    for positions, kind in (
        ([[0, 1, 2]] * 2, "list"),
        (np.arange(3)[None], "numpy.ndarray of int64"),
        ("012", "str"),
        ([], "list"),
    ):
        with refuses(ValueError, f"None, because {because}", kind, "position_ids"):
            getattr(nz, head)(weights, IDS, position_ids=positions)


MORE = "at most max_position_embeddings (5) tokens"


@pytest.mark.parametrize(("family", "head"), EVERY_LEARNED_HEAD)
def test_more_tokens_than_learned_positions_are_refused(family, head):
    weights = weights_for(head, LEARNED[family])
    with refuses(ValueError, MORE, "6", "input_ids"):
        getattr(nz, head)(weights, [[2] * 6])
    with refuses(ValueError, MORE, "7", "inputs_embeds"):
        getattr(nz, head)(weights, inputs_embeds=np.zeros((1, 7, 8)))
    getattr(nz, head)(weights, [[2] * 5])
    getattr(nz, head)(weights, [[2] * 6], position_ids=[[0, 1, 2, 3, 4, 4]])  # it is said where each stands


@pytest.mark.parametrize("kind", nz.families.bert.POSITION_KINDS)
def test_more_tokens_than_learned_positions_or_distances_are_refused_with_a_cache_too(kind):
    encoder = weights_for(config=CONFIGS["bert"].replace(position_embedding_type=kind))
    with refuses(ValueError, MORE, "6", "input_ids"):
        nz.forward(encoder, [[2] * 6])
    config = DECODERS["bert"].replace(position_embedding_type=kind)
    for head in ("forward", "masked_lm", "causal_lm"):
        weights = weights_for(head, config)
        with refuses(ValueError, MORE, "4 after 2 of the cache", "input_ids"):
            getattr(nz, head)(weights, [[2] * 4] * 2, past_key_values=cache(config))
        getattr(nz, head)(weights, [[2] * 3] * 2, past_key_values=cache(config))


def test_nezha_takes_more_tokens_than_max_position_embeddings():
    assert_equal(nz.forward(weights_for(), [[2] * 9]), nz.forward(weights_for(), np.full((1, 9), 2)))
    weights = weights_for(config=DECODER)
    assert nz.forward(weights, [[2] * 9] * 2, past_key_values=cache(DECODER)).last_hidden_state.shape == (2, 9, 8)


# ------------------------------------------------------------------------------- a decoder: its encoder and its cache

STATES = np.linspace(-1.0, 1.0, 2 * 4 * 8).reshape(2, 4, 8)  # (B, S, H)


@functools.cache
def cache(config=DECODER):
    """Make a cache of P = 2 tokens, for each layer a key and a value, (B, N, P, D)."""
    states = {"encoder_hidden_states": STATES} if config.add_cross_attention else {}
    return nz.forward(weights_for(config=config), [[2, 2], [3, 3]], **states).past_key_values


def changed(layer, index, make, config=DECODER):
    """Change one array of a cache."""
    layers = [list(arrays) for arrays in cache(config)]
    layers[layer][index] = make(layers[layer][index])
    return layers


CACHES = [
    bad("a dict", TypeError, "a tuple of arrays for each layer", "dict", past_key_values={0: cache()[0]}),
    bad("a text", TypeError, "a tuple of arrays for each layer", "str", past_key_values="01"),
    bad("True", TypeError, "a tuple of arrays for each layer", "bool", past_key_values=True),
    bad("one array", TypeError, "a tuple of arrays", "numpy.ndarray", past_key_values=np.zeros((2, 2, 2, 2, 2, 4))),
    bad("a layer's alone", ValueError, "one tuple for each of 2 layers", "1", past_key_values=cache()[:1]),
    bad("a layer too many", ValueError, "one tuple for each of 2 layers", "3", past_key_values=cache() + cache()[:1]),
    bad("empty", ValueError, "one tuple for each of 2 layers", "0", past_key_values=()),
    bad("None for a layer", TypeError, "a tuple of arrays", "NoneType", past_key_values=[cache()[0], None]),
    bad("a text for a layer", TypeError, "a tuple of arrays", "str", past_key_values=["kv", "kv"]),
    bad("an array for a layer", TypeError, "a tuple", "ndarray", past_key_values=[np.stack(kv) for kv in cache()]),
    bad("keys alone", ValueError, "2 arrays", "1", past_key_values=[kv[:1] for kv in cache()]),
    bad("cross-attention's too", ValueError, "2 arrays", "4", past_key_values=[kv + kv for kv in cache()]),
    bad("lists", TypeError, "a float array", "list", past_key_values=changed(0, 0, np.ndarray.tolist)),
    bad("None", TypeError, "a float array", "NoneType", past_key_values=changed(1, 1, lambda _: None)),
    bad("integers", TypeError, "a float array", "of int64", past_key_values=changed(0, 1, np.int64)),
    bad("PyTorch's", TypeError, "numpy", "torch.Tensor", past_key_values=changed(0, 1, torch.tensor)),
    bad("another library's", TypeError, "numpy", "array_api_strict.Array", past_key_values=changed(0, 0, strict)),
    bad("another batch", ValueError, "(2, 2, any, 4)", "(1, 2, 2, 4)", past_key_values=changed(0, 0, lambda x: x[:1])),
    bad("another head", ValueError, "(2, 2, 2, 4)", "(2, 1, 2, 4)", past_key_values=changed(1, 0, lambda x: x[:, :1])),
    bad(
        "another head size",
        ValueError,
        "(2, 2, 2, 4)",
        "(2, 2, 2, 3)",
        past_key_values=changed(0, 1, lambda x: x[..., :3]),
    ),
    bad(
        "heads merged",
        ValueError,
        "(2, 2, any, 4)",
        "(2, 2, 8)",
        past_key_values=changed(0, 0, lambda _: EMBEDS[:, :2]),
    ),
    bad("no token", ValueError, "(2, 2, any, 4)", "(2, 2, 0, 4)", past_key_values=changed(0, 0, lambda x: x[:, :, :0])),
    bad(
        "fewer values", ValueError, "(2, 2, 2, 4)", "(2, 2, 1, 4)", past_key_values=changed(0, 1, lambda x: x[:, :, :1])
    ),
    bad(
        "fewer in a layer",
        ValueError,
        "(2, 2, 2, 4)",
        "(2, 2, 1, 4)",
        past_key_values=changed(1, 0, lambda x: x[:, :, :1]),
    ),
    bad("of new tokens alone", ValueError, "(2, 5)", "(2, 3)", attention_mask=np.ones((2, 3)), past_key_values=cache()),
    bad(
        "of new keys alone",
        ValueError,
        "(2, 3, 5)",
        "(2, 3, 3)",
        attention_mask=np.ones((2, 3, 3)),
        past_key_values=cache(),
    ),
    bad(
        "of all tokens",
        ValueError,
        "(2, 3)",
        "(2, 5)",
        token_type_ids=np.zeros((2, 5), np.int64),
        past_key_values=cache(),
    ),
]


@pytest.mark.parametrize(DEALT, deal(CACHES, EVERY_DECODER))
def test_caches_are_refused(family, head, error, expected, got, arguments):
    refused(getattr(nz, head), weights_for(head, DECODERS[family]), error, expected, got, arguments, input_ids=IDS)


@pytest.mark.parametrize("family", DECODERS)
def test_positions_of_all_tokens_or_the_cache_are_refused_beside_a_cache(family):
    weights, past = weights_for(config=DECODERS[family]), cache(DECODERS[family])
    expected = "shape (2, 3)" if family == "bert" else "None"
    with refuses(ValueError, expected, "", "position_ids"):
        nz.forward(weights, IDS, past_key_values=past, position_ids=[[0, 1, 2, 3, 4]] * 2)
    if family == "bert":
        assert_equal(
            nz.forward(weights, IDS, past_key_values=past, position_ids=[[2, 3, 4]], use_cache=False),
            nz.forward(weights, IDS, past_key_values=past, use_cache=False),
        )


@pytest.mark.parametrize("family", DECODERS)
def test_caches_of_lists_and_of_other_float_types_work(family):
    weights, past = weights_for(config=DECODERS[family]), cache(DECODERS[family])
    expected = nz.forward(weights, IDS, past_key_values=past)
    lists = [list(arrays) for arrays in past]
    assert_equal(
        nz.forward(weights, IDS, past_key_values=lists, use_cache=False),
        nz.forward(weights, IDS, past_key_values=past, use_cache=False),
    )
    narrow = [[array.astype("float32") for array in arrays] for arrays in past]
    found = nz.forward(weights, IDS, past_key_values=narrow)
    np.testing.assert_allclose(found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-6)
    assert found.last_hidden_state.dtype == np.float64


ENCODER = [
    bad("lists", TypeError, "a float array of numpy", "list", encoder_hidden_states=STATES.tolist()),
    bad("integers", TypeError, "a float array", "of int64", encoder_hidden_states=STATES.astype(np.int64)),
    bad("PyTorch's", TypeError, "numpy", "torch.Tensor", encoder_hidden_states=torch.tensor(STATES)),
    bad("another library's", TypeError, "numpy", "array_api_strict.Array", encoder_hidden_states=strict(STATES)),
    bad(
        "a model's output",
        TypeError,
        "a float array",
        "ModelOutput",
        encoder_hidden_states=nz.forward(weights_for(), IDS),
    ),
    bad("another batch", ValueError, "shape (2, any, 8)", "(1, 4, 8)", encoder_hidden_states=STATES[:1]),
    bad("another width", ValueError, "shape (2, any, 8)", "(2, 4, 6)", encoder_hidden_states=STATES[..., :6]),
    bad("one text", ValueError, "shape (2, any, 8)", "(4, 8)", encoder_hidden_states=STATES[0]),
    bad("no tokens", ValueError, "shape (2, any, 8)", "(2, 0, 8)", encoder_hidden_states=STATES[:, :0]),
    bad("without states", ValueError, "encoder_hidden_states with it", "none", encoder_attention_mask=np.ones((2, 4))),
    *(
        bad(what, error, expected, got, encoder_attention_mask=mask, encoder_hidden_states=STATES)
        for what, error, expected, got, mask in [
            ("one axis", ValueError, "shape (2, 4)", "(4,)", [1, 1, 1, 0]),
            ("the decoder's length", ValueError, "shape (2, 4)", "(2, 3)", np.ones((2, 3))),
            ("another batch", ValueError, "shape (2, 4)", "(1, 4)", np.ones((1, 4))),
            ("three axes of wrong sizes", ValueError, "shape (2, 3, 4)", "(2, 4, 4)", np.ones((2, 4, 4))),
            ("additive", ValueError, "values from 0 (left out) to 1", "-1.0", -np.ones((2, 4))),
            ("NaN", ValueError, "values from 0 (left out) to 1", "nan", np.full((2, 4), np.nan)),
            ("a text", TypeError, "an array or lists of numbers", "str", "1110"),
            ("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", torch.ones(2, 4)),
        ]
    ),
    *(
        bad(what, ValueError, expected, got, past_key_values=past, encoder_hidden_states=STATES)
        for what, expected, got, past in [
            ("3 arrays", "2 or 4 arrays", "3", [kv[:3] for kv in cache(CROSS)]),
            ("of another encoder", "(2, 2, 4, 4)", "(2, 2, 3, 4)", changed(0, 2, lambda x: x[:, :, :3], CROSS)),
            ("of another length", "(2, 2, 4, 4)", "(2, 2, 3, 4)", changed(1, 3, lambda x: x[:, :, :3], CROSS)),
        ]
    ),
]


@pytest.mark.parametrize(DEALT, deal(ENCODER, EVERY_DECODER))
def test_what_a_decoder_attends_to_is_refused(family, head, error, expected, got, arguments):
    weights = weights_for(head, DECODERS[family].replace(add_cross_attention=True))
    refused(getattr(nz, head), weights, error, expected, got, arguments, input_ids=IDS)


@pytest.mark.parametrize(("family", "head"), [case for case in EVERY_HEAD_OF_A_TEXT if case[0] != "convbert"])
def test_what_only_a_decoder_with_cross_attention_takes_is_refused_by_others(family, head):
    weights = weights_for(head, CONFIGS[family])
    with refuses(ValueError, "is_decoder and add_cross_attention", "one without", "encoder_hidden_states"):
        getattr(nz, head)(weights, IDS, encoder_hidden_states=EMBEDS)
    with refuses(ValueError, "encoder_hidden_states with it", "none", "encoder_attention_mask"):
        getattr(nz, head)(weights, IDS, encoder_attention_mask=[[1, 1, 1]] * 2)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize(
    ("plain", "arguments"),
    [
        works(
            "booleans",
            {"encoder_attention_mask": [[1, 1, 1, 0]] * 2},
            encoder_attention_mask=[[True] * 3 + [False]] * 2,
        ),
        works(
            "for each query",
            {"encoder_attention_mask": [[1, 1, 1, 0]] * 2},
            encoder_attention_mask=[[[1, 1, 1, 0]] * 3] * 2,
        ),
        works(
            "the self-attention's alone",
            {"past_key_values": cache(CROSS)},
            past_key_values=[kv[:2] for kv in cache(CROSS)],
        ),
    ],
)
def test_what_a_decoder_attends_to_works(family, plain, arguments):
    shared = {"encoder_hidden_states": STATES, "use_cache": False}
    weights = weights_for(config=DECODERS[family].replace(add_cross_attention=True))
    assert_equal(nz.forward(weights, IDS, **shared, **arguments), nz.forward(weights, IDS, **shared, **plain))


@pytest.mark.parametrize("family", DECODERS)
def test_a_head_mask_where_layers_have_lost_different_heads_is_refused(family):
    weights = weights_for(config=CONFIGS[family].replace(pruned_heads={0: [1]}))
    with refuses(ValueError, "None, because layers differ in their heads", "list", "head_mask"):
        nz.forward(weights, IDS, head_mask=[1, 1])
    alike = weights_for(config=CONFIGS[family].replace(pruned_heads={0: [1], 1: [0]}))
    assert_equal(nz.forward(alike, IDS, head_mask=[1]), nz.forward(alike, IDS))
    with refuses(ValueError, "shape (1,)", "(2,)", "head_mask"):
        nz.forward(alike, IDS, head_mask=[1, 1])


# ---------------------------------------------------------------------------------------- what ConvBERT does not have

ENCODER_ALONE = [
    bad("states", ValueError, "", "numpy.ndarray of float64", encoder_hidden_states=EMBEDS),
    bad("states in lists", ValueError, "", "list", encoder_hidden_states=EMBEDS.tolist()),
    bad("a mask of theirs", ValueError, "", "list", encoder_attention_mask=[[1, 1, 1]] * 2),
    bad("a mask and no states", ValueError, "", "numpy.ndarray of float64", encoder_attention_mask=ONES),
    bad("a cache", ValueError, "", "tuple", past_key_values=cache()),
    bad("an empty cache", ValueError, "", "tuple", past_key_values=()),
    bad("None for each layer", ValueError, "", "list", past_key_values=[None, None]),
    bad("a cache to be returned", ValueError, "", "bool", use_cache=True),
    bad("a NumPy boolean", ValueError, "", "bool", use_cache=np.True_),
]


@pytest.mark.parametrize("head", [head for family, head in EVERY_HEAD if family == "convbert"])
@pytest.mark.parametrize(("error", "expected", "got", "arguments"), ENCODER_ALONE)
def test_convbert_refuses_what_a_decoder_takes(head, error, expected, got, arguments):
    weights, ids = weights_for(head, CONFIGS["convbert"]), CHOICES if head == "multiple_choice" else IDS
    because = "None, because ConvBERT is no decoder"
    refused(getattr(nz, head), weights, error, because, got, arguments, input_ids=ids)


@pytest.mark.parametrize("head", NO_DECODER)
def test_convbert_names_the_heads_that_it_has_instead_of_one_that_it_does_not_have(head):
    has = "ConvBERT, which has masked_lm, sequence_classification, multiple_choice, token_classification, "
    config = CONFIGS["convbert"]
    for run in (nz.init, task_shapes):
        with pytest.raises(ValueError, match=f"^{head}: expected a model with this head, got {has}question_"):
            run(config, head)
    weights = weights_for(config=config)
    berts = {name: array for name, array in weights_for(config=CONFIGS["bert"]).items() if name.startswith("cls.")}
    for wrong in (weights, nz.Weights({**weights, **berts}, config)):
        with pytest.raises(ValueError, match=f"^{head}: expected a model with this head, got {has}question_"):
            getattr(nz, head)(wrong, IDS)


# ------------------------------------------------------------------------------------------------------------- labels

SHAPES = {  # of the labels of each head, and the number of classes
    "pretraining": ((2, 3), 11),
    "masked_lm": ((2, 3), 11),
    "causal_lm": ((2, 3), 11),
    "next_sentence_prediction": ((2,), 2),
    "sequence_classification": ((2,), 3),
    "multiple_choice": ((2,), 2),
    "token_classification": ((2, 3), 3),
}


def labels_of(kind, shape, count):
    """Make wrong labels, and say what the error is, what was expected, and what came."""
    shown = f"shape {shape}"
    values = f"values from 0 to {count - 1} or -100"
    right = np.ones(shape, np.int64)
    match kind:
        case "another batch":
            return right[:1], ValueError, shown, str((1, *shape[1:]))
        case "an axis too many":
            return np.ones((*shape, 2), np.int64), ValueError, shown, str((*shape, 2))
        case "an axis too few":
            return right[0], ValueError, shown, str(shape[1:])
        case "empty":
            return [], ValueError, shown, "(0,)"
        case "a class too many":
            return right * count, ValueError, values, str(count)
        case "below 0":
            return -right, ValueError, values, "-1"
        case "a class too many in uint8":
            return (right * count).astype(np.uint8), ValueError, values, str(count)
        case "64 bits":
            return np.full(shape, 2**64 - 1, np.uint64), ValueError, values, str(2**64 - 1)
        case "floats":
            return right * 1.0, TypeError, "integers", "float64"
        case "booleans":
            return right > 0, TypeError, "integers", "bool"
        case "texts":
            return right.astype(str).tolist(), TypeError, "numbers", "str"
        case "None in a list":
            return [None] * 2, TypeError, "numbers", "NoneType"
        case "a text":
            return "10", TypeError, "an array or lists of numbers", "str"
        case "different lengths":
            return [[1], [1, 1]], ValueError, "rows of the same length", "lists of different lengths"
        case "PyTorch's":
            return torch.tensor(right), TypeError, "numpy arrays", "torch.Tensor"
        case "another library's":
            return strict(right), TypeError, "numpy arrays", "array_api_strict.Array"


EVERY_HEAD_WITH_CLASSES = [(family, head) for family, head in EVERY_LABELLED_HEAD if head in SHAPES]

WRONG_LABELS = [
    "another batch",
    "an axis too many",
    "an axis too few",
    "empty",
    "a class too many",
    "below 0",
    "a class too many in uint8",
    "64 bits",
    "floats",
    "booleans",
    "texts",
    "None in a list",
    "a text",
    "different lengths",
    "PyTorch's",
    "another library's",
]


@pytest.mark.parametrize("kind", WRONG_LABELS)
@pytest.mark.parametrize(("family", "head"), EVERY_HEAD_WITH_CLASSES)
def test_labels_are_refused(family, head, kind):
    shape, count = SHAPES[head]
    labels, error, expected, got = labels_of(kind, shape, count)
    config = CONFIGS[family].replace(problem_type="single_label_classification")  # else floats mean several labels
    ids = CHOICES if head == "multiple_choice" else IDS
    with refuses(error, expected, got, "labels"):
        getattr(nz, head)(weights_for(head, config), ids, labels=labels)


@pytest.mark.parametrize("kind", WRONG_LABELS)
@pytest.mark.parametrize("family", DECODERS)
def test_the_label_of_the_next_sentence_is_refused(family, kind):
    label, error, expected, got = labels_of(kind, (2,), 2)
    weights = weights_for("pretraining", CONFIGS[family])
    with refuses(error, expected, got, "next_sentence_label"):
        nz.pretraining(weights, IDS, labels=IDS, next_sentence_label=label)
    with refuses(error, expected, got, "next_sentence_label"):  # without the others there is no loss, but it is checked
        nz.pretraining(weights, IDS, next_sentence_label=label)


@pytest.mark.parametrize("kind", [kind for kind in WRONG_LABELS if not kind.startswith(("a class", "below", "64"))])
@pytest.mark.parametrize("argument", ["start_positions", "end_positions"])
@pytest.mark.parametrize("family", FAMILIES)
def test_positions_of_an_answer_are_refused(family, argument, kind):
    weights = weights_for("question_answering", CONFIGS[family])
    positions, error, expected, got = labels_of(kind, (2,), 3)
    both = {"start_positions": [0, 1], "end_positions": [1, 2]}
    for others in (both, {}):
        with refuses(error, expected, got, argument):
            nz.question_answering(weights, IDS, **others | {argument: positions})


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_outside_of_the_text_are_clamped_and_left_out(family):
    weights = weights_for("question_answering", CONFIGS[family])

    def loss(starts, ends=(0, 0)):
        return nz.question_answering(weights, IDS, start_positions=starts, end_positions=ends).loss

    assert loss([-7, 1]) == loss([0, 1]) != loss([1, 1])
    assert loss([3, 1]) == loss([2**40, 1]) != loss([2, 1])
    assert loss(np.array([[0], [1]], np.int8)) == loss([[0], [1]]) == loss([0, 1])
    assert np.isnan(loss([0, 1], [3, 3]))  # a mean over no ends at all


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD_WITH_CLASSES)
def test_labels_of_any_integer_type_and_ignored_ones_work(family, head):
    weights = weights_for(head, CONFIGS[family])
    shape, count = SHAPES[head]
    right = np.arange(np.prod(shape)).reshape(shape) % count
    ids = CHOICES if head == "multiple_choice" else IDS

    def loss(labels):
        others = {"next_sentence_label": [0, 1]} if head == "pretraining" else {}
        return getattr(nz, head)(weights, ids, labels=labels, **others).loss

    expected = loss(right)
    assert np.isfinite(expected)
    for dtype in ("int8", "int32", "uint8", "uint64"):
        assert loss(right.astype(dtype)) == expected
    assert loss(right.tolist()) == expected
    if len(shape) == 1:
        assert loss(right[:, None]) == loss(right[:, None].tolist()) == expected  # as the reference
    some = right.copy()
    some[-1] = -100
    assert np.isfinite(loss(some)) and loss(some) == loss(some.astype("int8"))


def classify(labels, count=3, problem=None, family="nezha"):
    weights = weights_for("sequence_classification", CONFIGS[family].replace(num_labels=count, problem_type=problem))
    return nz.sequence_classification(weights, IDS, labels=labels).loss


NUMBERS = [  # of a regression, or probabilities of several labels
    ("another batch", 1, "regression", ValueError, "shape (2, 1)", "(1, 1)", [[0.5]]),
    ("another batch, flat", 1, "regression", ValueError, "shape (2,)", "(3,)", [0.5, 1.5, 2.5]),
    ("another batch, by default", 1, None, ValueError, "shape (2,)", "(3,)", [0.5, 1.5, 2.5]),
    ("too many numbers", 1, "regression", ValueError, "shape (2, 1)", "(2, 2)", [[0.5, 0.5]] * 2),
    ("flat, for several", 3, "regression", ValueError, "shape (2, 3)", "(2,)", [0.5, 0.5]),
    ("no axis", 1, "regression", ValueError, "shape (2, 1)", "()", 0.5),
    ("too few labels", 3, "multi_label_classification", ValueError, "shape (2, 3)", "(2, 2)", [[0, 1]] * 2),
    ("classes", 3, "multi_label_classification", ValueError, "shape (2, 3)", "(2,)", [0, 1]),
    ("flat, for one", 1, "multi_label_classification", ValueError, "shape (2, 1)", "(2,)", [0, 1]),
    ("classes as floats", 3, None, ValueError, "shape (2, 3)", "(2,)", [0.0, 1.0]),
    ("one-hot integers", 3, None, ValueError, "shape (2,)", "(2, 3)", [[0, 1, 0]] * 2),
    ("texts", 1, "regression", TypeError, "numbers", "str", ["a", "b"]),
    ("texts, by default", 3, None, TypeError, "numbers", "str", ["a", "b"]),
    ("a text", 3, None, TypeError, "an array or lists of numbers", "str", "ab"),
    ("None in a list", 3, "multi_label_classification", TypeError, "numbers", "NoneType", [[0, 1, None]] * 2),
    ("complex numbers", 1, "regression", TypeError, "real numbers", "complex128", [1j, 0j]),
    ("PyTorch's", 1, "regression", TypeError, "numpy arrays", "torch.Tensor", torch.ones(2)),
    ("PyTorch's, by default", 3, None, TypeError, "numpy arrays", "torch.Tensor", torch.ones(2)),
    ("floats", 3, "single_label_classification", TypeError, "integers", "float64", [0.0, 1.0]),
]


@pytest.mark.parametrize(("count", "problem", "error", "expected", "got", "labels"), [
    pytest.param(*row, id=what) for what, *row in NUMBERS
])  # fmt: skip
@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_as_labels_are_refused(family, count, problem, error, expected, got, labels):
    with refuses(error, expected, got, "labels"):
        classify(labels, count, problem, family)


def test_numbers_as_labels_work_in_any_type_and_shape_that_says_the_same():
    multi = "multi_label_classification"
    assert (
        classify([0.0, 2.0], 1)
        == classify([0, 2], 1)
        == classify([[0], [2]], 1)
        == classify(np.array([0, 2], "int8"), 1)
    )
    assert (
        classify([[0, 1, 1]] * 2, 3, multi)
        == classify([[0.0, 1.0, 1.0]] * 2, 3)
        == classify([[False, True, True]] * 2, 3)
    )
    assert classify([[-1, 0, 7]] * 2, 3, "regression") == classify([[-1.0, 0.0, 7.0]] * 2, 3, "regression")
    assert classify([[0], [1]], 1, multi) == classify([[0.0], [1.0]], 1, multi)
    assert classify([0, 0], 1, "single_label_classification") == 0


# ---------------------------------------------------------------------------------------------------- multiple choice

FOLDED = "shape (2, 2, length)"

CHOICE_INPUTS = [
    bad("none, and no embeddings", ValueError, "either input_ids or inputs_embeds", "neither", input_ids=None),
    bad("embeddings too", ValueError, "either", "both", input_ids=CHOICES, inputs_embeds=np.zeros((2, 2, 3, 8))),
    bad("no axis for the choices", ValueError, "shape (batch, choices, length)", "(2, 3)", input_ids=IDS),
    bad("an axis too many", ValueError, "shape (batch, choices, length)", "(1, 2, 2, 3)", input_ids=[CHOICES]),
    bad("a number", ValueError, "shape (batch, choices, length)", "()", input_ids=3),
    bad("empty", ValueError, "shape (batch, choices, length)", "(1, 0)", input_ids=[[]]),
    bad("no choices", ValueError, ANY, "(0, 3): nothing in it", input_ids=np.zeros((1, 0, 3), np.int64)),
    bad("different numbers of choices", ValueError, "rows of the same length", "lists", input_ids=[[[2], [3]], [[4]]]),
    bad("a text", TypeError, "an array or lists of numbers", "str", input_ids="房间"),
    bad("texts", TypeError, "numbers", "str", input_ids=[[["a"], ["b"]]]),
    bad("floats", TypeError, "integers", "float64", input_ids=[[[2.0], [3.0]]]),
    bad("an id beyond the vocabulary", ValueError, "values from 0 to 10", "11", input_ids=[[[2], [11]]]),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", input_ids=torch.tensor(CHOICES)),
    bad("another library's", TypeError, "numpy arrays", "array_api_strict.Array", input_ids=strict(CHOICES)),
    bad("no axis for the choices", ValueError, FOLDED, "(2, 3)", attention_mask=np.ones((2, 3))),
    bad("another number of choices", ValueError, FOLDED, "(2, 3, 3)", attention_mask=np.ones((2, 3, 3))),
    bad("another batch", ValueError, FOLDED, "(1, 2, 3)", attention_mask=np.ones((1, 2, 3))),
    bad("another length", ValueError, "shape (4, 3)", "(4, 2)", attention_mask=np.ones((2, 2, 2))),
    bad("NaN", ValueError, "values from 0 (left out) to 1", "nan", attention_mask=np.full((2, 2, 3), np.nan)),
    bad("a text", TypeError, "an array or lists of numbers", "str", attention_mask="11"),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", attention_mask=torch.ones(2, 2, 3)),
    bad("no axis for the choices", ValueError, FOLDED, "(2, 3)", token_type_ids=[[0, 0, 1]] * 2),
    bad("another number of choices", ValueError, FOLDED, "(2, 1, 3)", token_type_ids=[[[0, 0, 1]]] * 2),
    bad("a type too many", ValueError, "values from 0 to 1", "2", token_type_ids=[[[0, 0, 2]] * 2] * 2),
    bad("PyTorch's", TypeError, "numpy arrays", "torch.Tensor", token_type_ids=torch.tensor(CHOICES)),
    bad("a head too many", ValueError, "shape (2,)", "(3,)", head_mask=[1, 1, 1]),
    bad("a number", TypeError, "True, False or None", "0", output_attentions=0),
    bad(
        "lists",
        TypeError,
        "a float array of numpy",
        "list",
        inputs_embeds=np.zeros((2, 2, 3, 8)).tolist(),
        input_ids=None,
    ),
    bad("integers", TypeError, "a float array", "of int64", inputs_embeds=np.zeros((2, 2, 3, 8), int), input_ids=None),
    bad("PyTorch's", TypeError, "numpy", "torch.Tensor", inputs_embeds=torch.zeros(2, 2, 3, 8), input_ids=None),
    bad(
        "no axis for the choices",
        ValueError,
        "shape (batch, choices, length, hidden)",
        "(2, 3, 8)",
        inputs_embeds=EMBEDS,
        input_ids=None,
    ),
    bad("another width", ValueError, "8)", "(4, 3, 7)", inputs_embeds=np.zeros((2, 2, 3, 7)), input_ids=None),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("error", "expected", "got", "arguments"), CHOICE_INPUTS)
def test_choices_are_refused(family, error, expected, got, arguments):
    weights = weights_for("multiple_choice", CONFIGS[family])
    refused(nz.multiple_choice, weights, error, expected, got, arguments, **{"input_ids": CHOICES} | arguments)


@pytest.mark.parametrize("family", LEARNED)
@pytest.mark.parametrize(
    ("error", "expected", "got", "arguments"),
    [
        bad("no axis for the choices", ValueError, FOLDED, "(2, 3)", position_ids=[[0, 1, 2]] * 2),
        bad("one row", ValueError, FOLDED, "(1, 3)", position_ids=[[0, 1, 2]]),
        bad("one row for all choices", ValueError, FOLDED, "(1, 1, 3)", position_ids=[[[0, 1, 2]]]),
        bad("another length", ValueError, "shape (4, 3)", "(4, 2)", position_ids=[[[0, 1]] * 2] * 2),
        bad("a position too far", ValueError, POSITIONS, "5", position_ids=[[[0, 1, 5]] * 2] * 2),
        bad("floats", TypeError, "integers", "float64", position_ids=np.zeros((2, 2, 3))),
        bad("a text", TypeError, "an array or lists of numbers", "str", position_ids="012"),
    ],
)
def test_positions_of_choices_are_refused(family, error, expected, got, arguments):
    weights = weights_for("multiple_choice", LEARNED[family])
    refused(nz.multiple_choice, weights, error, expected, got, arguments, input_ids=CHOICES)


@pytest.mark.parametrize("config", [CONFIG, RELATIVE], ids=["nezha", "relative bert"])
def test_positions_of_choices_are_refused_where_they_are_relative(config):
    with refuses(ValueError, "None, because", "", "position_ids"):
        nz.multiple_choice(weights_for("multiple_choice", config), CHOICES, position_ids=CHOICES)


@pytest.mark.parametrize("family", LEARNED)
def test_more_tokens_of_a_choice_than_learned_positions_are_refused(family):
    with refuses(ValueError, MORE, "6", "input_ids"):
        nz.multiple_choice(weights_for("multiple_choice", LEARNED[family]), [[[2] * 6] * 2])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("plain", "arguments"),
    [
        works("an array", {}, input_ids=np.array(CHOICES, np.uint8)),
        works("booleans", {"attention_mask": [[[1, 1, 0]] * 2] * 2}, attention_mask=[[[True, True, False]] * 2] * 2),
        works(
            "an array",
            {"token_type_ids": [[[0, 1, 1]] * 2] * 2},
            token_type_ids=np.array([[[0, 1, 1]] * 2] * 2, "int8"),
        ),
    ],
)
def test_choices_of_other_types_work(family, plain, arguments):
    weights = weights_for("multiple_choice", CONFIGS[family])
    expected = nz.multiple_choice(weights, **{"input_ids": CHOICES} | plain)
    assert_equal(nz.multiple_choice(weights, **{"input_ids": CHOICES} | arguments), expected)


# ----------------------------------------------------------------------------------------- weights, and what is in them


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_weights_that_are_no_mapping_are_refused(family, head):
    function, weights = getattr(nz, head), weights_for(head, CONFIGS[family])
    for wrong in (None, "model.safetensors", 3, [("a", np.zeros(2))], np.zeros(2), nz.NezhaConfig()):
        with refuses(TypeError, "Weights or a mapping", type(wrong).__name__, "weights"):
            function(wrong, IDS)
    with refuses(TypeError, "a configuration, because weights is a plain mapping", "None", "config"):
        function(dict(weights), IDS)
    with refuses(TypeError, ANY_CONFIG, "dict", "config"):
        function(dict(weights), IDS, config={"hidden_size": 8})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hidden_size": 12}, ValueError, r"word_embeddings.weight \(11, 8\) instead of \(11, 12\)"),
        ({"vocab_size": 12}, ValueError, r"word_embeddings.weight \(11, 8\) instead of \(12, 8\)"),
        ({"type_vocab_size": 3}, ValueError, r"token_type_embeddings.weight \(2, 8\) instead of \(3, 8\)"),
        ({"intermediate_size": 7}, ValueError, r"intermediate.dense.weight \(6, 8\) instead of \(7, 8\)"),
        ({"num_hidden_layers": 3}, ValueError, r"3 layers, as num_hidden_layers says, got those of 2$"),
        ({"is_decoder": True, "add_cross_attention": True}, ValueError, r"missing encoder.layer.0.crossattention"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("family", DECODERS)
def test_a_configuration_of_another_size_than_the_weights_is_refused(family, changes, error, message):
    weights = weights_for(config=CONFIGS[family])
    for mapping in (weights, dict(weights)):
        with pytest.raises(error, match=f"^weights: expected .*{message}"):
            nz.forward(mapping, IDS, config=CONFIGS[family].replace(**changes))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"max_position_embeddings": 6}, r"position_embeddings.weight \(5, 8\) instead of \(6, 8\)"),
        ("bert", {"position_embedding_type": "relative_key"}, r"missing encoder.layer.0.*distance_embedding.weight"),
        ("convbert", {"vocab_size": 12}, r"word_embeddings.weight \(11, 8\) instead of \(12, 8\)"),
        ("convbert", {"max_position_embeddings": 6}, r"position_embeddings.weight \(5, 8\) instead of \(6, 8\)"),
        ("convbert", {"embedding_size": 7}, r"word_embeddings.weight \(11, 8\) instead of \(11, 7\)"),
        ("convbert", {"hidden_size": 8}, r"superfluous embeddings_project.weight, embeddings_project.bias$"),
        ("convbert", {"conv_kernel_size": 5}, r"depthwise.weight \(16, 1, 3\) instead of \(16, 1, 5\)"),
        ("convbert", {"num_groups": 2}, r"intermediate.dense.weight \(6, 16\) instead of \(2, 8, 3\)"),
        ("convbert", {"head_ratio": 1}, r"conv_kernel_layer.weight \(6, 8\) instead of \(12, 8\)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_configuration_of_another_kind_than_the_weights_is_refused(family, changes, message):
    config = CONFIGS[family]
    with pytest.raises(ValueError, match=f"^weights: expected .*{message}"):
        nz.forward(weights_for(config=config), IDS, config=config.replace(**changes))


def test_learned_distances_are_refused_where_positions_are_absolute():
    with pytest.raises(ValueError, match=r"^weights: .* superfluous .*0\.attention\.self\.distance_embedding\.weight"):
        nz.forward(weights_for(config=RELATIVE), IDS, config=CONFIGS["bert"])


@pytest.mark.parametrize(
    ("family", "other", "message"),
    [
        ("nezha", "bert", "missing embeddings.position_embeddings.weight$"),
        ("nezha", "convbert", "missing embeddings.position_embeddings.weight, .*key_conv_attn_layer.depthwise"),
        ("bert", "nezha", "superfluous embeddings.position_embeddings.weight$"),
        ("bert", "convbert", "missing .*key_conv_attn_layer.depthwise.weight"),
        ("convbert", "nezha", "superfluous embeddings.position_embeddings.weight, .*key_conv_attn_layer.depthwise"),
        ("convbert", "bert", "superfluous .*key_conv_attn_layer.depthwise.weight"),
    ],
)
def test_the_configuration_of_another_family_than_the_weights_is_refused(family, other, message):
    weights = weights_for(config=CONFIGS[family])
    for mapping in (weights, dict(weights)):
        for function in (nz.forward, nz.masked_lm):
            with pytest.raises(ValueError, match=f"^weights: expected .*{message}"):
                function(mapping, IDS, config=CONFIGS[other])
    with pytest.raises(ValueError, match=f"^weights: expected .*{message}"):
        nz.Weights(weights, CONFIGS[other])


def test_fewer_layers_and_no_decoder_may_be_made_of_a_larger_model():
    cross = weights_for(config=DECODERS["bert"].replace(add_cross_attention=True))
    for weights, smaller in ((cross, CONFIGS["bert"]), *((weights_for(config=one), one) for one in CONFIGS.values())):
        out = nz.forward(weights, IDS, config=smaller.replace(num_hidden_layers=1), output_hidden_states=True)
        assert len(out.hidden_states) == 2


def without(*gone, head="forward", family="nezha"):
    return {name: array for name, array in weights_for(head, CONFIGS[family]).items() if not name.startswith(gone)}


@pytest.mark.parametrize(
    ("family", "head", "tensor"),
    [
        *(
            (family, head, tensor)
            for family in DECODERS
            for head, tensor in (
                ("pretraining", "cls.seq_relationship.bias"),
                ("pretraining", "cls.predictions.bias"),
                ("masked_lm", "cls.predictions.transform.dense.weight"),
                ("causal_lm", "cls.predictions.transform.LayerNorm.bias"),
                ("next_sentence_prediction", "cls.seq_relationship.weight"),
                ("sequence_classification", "classifier.weight"),
                ("multiple_choice", "classifier.bias"),
                ("token_classification", "classifier.weight"),
                ("question_answering", "qa_outputs.bias"),
            )
        ),
        ("convbert", "masked_lm", "generator_predictions.dense.weight"),
        ("convbert", "masked_lm", "generator_predictions.LayerNorm.bias"),
        ("convbert", "masked_lm", "generator_lm_head.bias"),
        ("convbert", "sequence_classification", "classifier.dense.weight"),
        ("convbert", "sequence_classification", "classifier.out_proj.bias"),
        ("convbert", "multiple_choice", "classifier.bias"),
        ("convbert", "token_classification", "classifier.weight"),
        ("convbert", "question_answering", "qa_outputs.weight"),
    ],
)
def test_a_head_names_the_tensor_that_is_missing_or_of_another_shape(family, head, tensor):
    config, ids = weights_for(head, CONFIGS[family]).config, CHOICES if head == "multiple_choice" else IDS
    with pytest.raises(ValueError, match=f"^{head} needs tensors that the weights do not have: {re.escape(tensor)}$"):
        getattr(nz, head)(without(tensor, head=head, family=family), ids, config=config)
    wrong = {**weights_for(head, CONFIGS[family]), tensor: np.zeros((7,))}
    with pytest.raises(ValueError, match=rf"^weights: .*{re.escape(tensor)} \(7,\) instead of"):
        getattr(nz, head)(wrong, ids, config=config)


POOLED = ("pretraining", "next_sentence_prediction", "sequence_classification", "multiple_choice")


@pytest.mark.parametrize("head", POOLED)
@pytest.mark.parametrize("family", DECODERS)
def test_a_head_names_the_pooler_that_is_missing(family, head):
    config, ids = CONFIGS[family], CHOICES if head == "multiple_choice" else IDS
    with pytest.raises(ValueError, match=f"^{head} needs .*: pooler.dense.weight, pooler.dense.bias$"):
        getattr(nz, head)(without("pooler.", head=head, family=family), ids, config=config)


@pytest.mark.parametrize("tensor", ["pooler.dense.weight", "pooler.dense.bias"])
@pytest.mark.parametrize("family", DECODERS)
def test_half_a_pooler_and_one_of_another_shape_are_refused(family, tensor):
    config = CONFIGS[family]
    with pytest.raises(ValueError, match=f"^weights: expected all tensors .* pooler, missing {tensor}$"):
        nz.forward(without(tensor, family=family), IDS, config=config)
    with pytest.raises(ValueError, match=rf"^weights: .*{tensor} \(7,\) instead of"):
        nz.forward({**weights_for(config=config), tensor: np.zeros(7)}, IDS, config=config)
    assert nz.forward(without("pooler.", family=family), IDS, config=config).pooler_output is None


def test_convbert_has_no_pooler_even_where_there_are_tensors_of_one():
    config = CONFIGS["convbert"]
    more = {**weights_for(config=config), "pooler.dense.weight": np.ones((16, 16)), "pooler.dense.bias": np.ones(16)}
    assert nz.forward(more, IDS, config=config).pooler_output is None
    del more["pooler.dense.bias"]
    assert nz.forward(more, IDS, config=config).pooler_output is None


@pytest.mark.parametrize("family", FAMILIES)
def test_untied_weights_need_the_decoders_matrix(family):
    config = CONFIGS[family].replace(tie_word_embeddings=False)
    decoder = "generator_lm_head" if family == "convbert" else "cls.predictions.decoder"
    with pytest.raises(ValueError, match=rf"^masked_lm needs tensors .*: {decoder}\.weight$"):
        nz.masked_lm(weights_for(config=CONFIGS[family]), IDS, config=config)


@pytest.mark.parametrize("family", DECODERS)
def test_causal_lm_needs_a_decoder(family):
    with refuses(ValueError, "a config with is_decoder=True", "False", "causal_lm"):
        nz.causal_lm(weights_for(config=CONFIGS[family]), IDS)
    with refuses(ValueError, "a config with is_decoder=True", "False", "causal_lm"):
        nz.causal_lm(weights_for(config=DECODERS[family]), IDS, config=CONFIGS[family])


def test_weights_are_checked_when_they_are_made():
    tensors, name = dict(weights_for()), "encoder.layer.1.output.dense.bias"
    with refuses(TypeError, ANY_CONFIG, "dict", "config"):
        nz.Weights(tensors, CONFIG.to_dict())
    with refuses(TypeError, ANY_CONFIG, "NoneType", "config"):
        nz.Weights(tensors, None)
    for wrong in (None, [("a", np.zeros(2))], "model.safetensors"):
        with refuses(TypeError, "a mapping from names to arrays", type(wrong).__name__, "tensors"):
            nz.Weights(wrong, CONFIG)
    with pytest.raises(ValueError, match=f"^weights: expected all tensors .*missing {name}$"):
        nz.Weights(without(name), CONFIG)
    with pytest.raises(ValueError, match=r"^weights: expected all tensors .* and \d+ more$"):
        nz.Weights({}, CONFIG)
    for wrong in (tensors[name].tolist(), None, "", 0.0, np.zeros(8, int), np.zeros(8, complex), np.zeros(8, object)):
        with pytest.raises(TypeError, match=f"^weights: expected arrays of floats, got .* for {name}$"):
            nz.Weights({**tensors, name: wrong}, CONFIG)
    with pytest.raises(ValueError, match=rf"^weights: expected the shapes .*{name} \(7,\) instead of \(8,\)$"):
        nz.Weights({**tensors, name: np.zeros(7)}, CONFIG)
    with pytest.raises(ValueError, match=f"^weights: expected one dtype, got float64 .* and float32 for {name}$"):
        nz.Weights({**tensors, name: np.zeros(8, "float32")}, CONFIG)
    on_devices = dict(strict_weights()) | {name: strict(tensors[name], array_api_strict.Device("CPU_DEVICE"))}
    with pytest.raises(
        ValueError, match=f"^weights: expected one device, got .*device1.* and .*CPU_DEVICE.* for {name}$"
    ):
        nz.Weights(on_devices, CONFIG)


def test_weights_cannot_be_changed():
    weights = weights_for()
    with pytest.raises(TypeError, match="item assignment"):
        weights["pooler.dense.bias"] = np.zeros(8)
    with pytest.raises(KeyError, match=r"pooler\.bias"):
        weights["pooler.bias"]


@pytest.mark.parametrize(
    ("error", "expected", "got", "arguments"),
    [
        bad("not known", ValueError, "one of bfloat16, float16, float32, float64", "'float33'", dtype="float33"),
        bad("integers", ValueError, "one of bfloat16, float16, float32, float64", "int64", dtype="int64"),
        bad("a number", ValueError, "one of bfloat16, float16, float32, float64", "3", dtype=3),
        bad("a number", TypeError, "'cpu', 'cuda' or 'cuda:1'", "0", device=0),
        bad("not known", ValueError, "'cpu', 'cuda' or 'cuda:1'", "'mps'", device="mps"),
        bad("no number", ValueError, "'cpu', 'cuda' or 'cuda:1'", "'cuda:'", device="cuda:"),
        bad("below 0", ValueError, "'cpu', 'cuda' or 'cuda:1'", "'cuda:-1'", device="cuda:-1"),
    ],
)
def test_moving_weights_is_refused(error, expected, got, arguments):
    with refuses(error, expected, got, next(iter(arguments))):
        weights_for().to(**arguments)


def test_moving_weights_takes_keywords_that_it_knows():
    with pytest.raises(TypeError, match="'dtypes'"):
        weights_for().to(dtypes="float32")
    with pytest.raises(TypeError, match="positional"):
        weights_for().to("cpu")


@pytest.mark.parametrize("dtype", ["float16", np.float16, np.dtype("float16"), "f2"])
def test_a_dtype_may_be_a_name_or_a_type(dtype):
    assert weights_for().to(dtype=dtype).dtype == nz.init(CONFIG, dtype=dtype).dtype == np.float16


@pytest.mark.parametrize(
    ("error", "expected", "got", "arguments"),
    [
        bad("a dict", TypeError, ANY_CONFIG, "dict", config=CONFIG.to_dict()),
        bad("None", TypeError, ANY_CONFIG, "NoneType", config=None),
        bad("the class", TypeError, ANY_CONFIG, "type", config=nz.NezhaConfig),
        bad("not known", ValueError, "one of pretraining, masked_lm", "'classifier'", head="classifier"),
        bad("a list", ValueError, "one of pretraining, masked_lm", "['masked_lm']", head=["masked_lm"]),
        bad("forward", ValueError, "one of pretraining, masked_lm", "'forward'", head="forward"),
        bad("a float", TypeError, "an integer", "0.0", seed=0.0),
        bad("a text", TypeError, "an integer", "'0'", seed="0"),
        bad("None", TypeError, "an integer", "None", seed=None),
        bad("True", TypeError, "an integer", "True", seed=True),
        bad("not known", ValueError, "one of float16, float32, float64", "'float8'", dtype="float8"),
        bad("integers", ValueError, "one of float16, float32, float64", "int32", dtype=np.int32),
        bad("None", ValueError, "one of float16, float32, float64", "None", dtype=None),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_weights_is_refused(family, error, expected, got, arguments):
    with refuses(error, expected, got, next(iter(arguments))):
        nz.init(**{"config": CONFIGS[family]} | arguments)


def test_a_seed_is_any_integer():
    drawn = nz.init(CONFIG, seed=7).word_embeddings
    np.testing.assert_array_equal(nz.init(CONFIG, seed=np.uint8(7)).word_embeddings, drawn)
    for seed in (-1, 2**70):
        assert (nz.init(CONFIG, seed=seed).word_embeddings != drawn).any()


# ------------------------------------------------------------------------------------------------- gradients and traces


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
def test_a_gradient_needs_a_loss(family, head):
    ids = CHOICES if head == "multiple_choice" else IDS
    with pytest.raises(ValueError, match=f"^value_and_grad: {head} returned no loss: give it labels$"):
        nz.value_and_grad(getattr(nz, head))(weights_for(head, CONFIGS[family]), ids)


def test_a_gradient_needs_all_the_labels_and_a_head():
    for head, labels in [
        ("pretraining", {"labels": IDS}),
        ("pretraining", {"next_sentence_label": [0, 1]}),
        ("question_answering", {"start_positions": [0, 1]}),
        ("question_answering", {"end_positions": [0, 1]}),
        ("forward", {}),
    ]:
        with pytest.raises(ValueError, match=f"^value_and_grad: {head} returned no loss"):
            nz.value_and_grad(getattr(nz, head))(weights_for(head), IDS, **labels)


@pytest.mark.parametrize(
    "seed", ["0", 0.5, True, (0, 1, 2), (0, "1"), (0, None), (True, 0), (), (0,), [0, 1], {0}, np.zeros(2)], ids=repr
)
def test_a_seed_for_dropout_is_refused(seed):
    with refuses(TypeError, "an integer, a pair of integers or None", str(seed)[:3], "dropout_seed"):
        nz.value_and_grad(nz.masked_lm, dropout_seed=seed)


def test_a_seed_for_dropout_is_an_integer_of_any_kind_or_a_pair():
    losses = [
        nz.value_and_grad(nz.masked_lm, dropout_seed=seed)(weights_for(), IDS, labels=IDS)[0].loss
        for seed in (3, np.int64(3), (3, 0), (np.uint8(3), 0), (3, 1))
    ]
    assert losses[0] == losses[1] == losses[2] == losses[3] != losses[4]


def test_the_other_arguments_of_value_and_grad_are_refused():
    for wrong in (None, "masked_lm", weights_for()):
        with refuses(TypeError, "a function", type(wrong).__name__, "head"):
            nz.value_and_grad(wrong)
    with refuses(TypeError, "True or False", "'probs'", "intermediates"):
        nz.value_and_grad(nz.masked_lm, intermediates="probs")


def test_a_gradient_refuses_what_its_head_refuses():
    run = nz.value_and_grad(nz.masked_lm)
    with refuses(ValueError, "values from 0 to 10 or -100", "11", "labels"):
        run(weights_for(), IDS, labels=[[11] * 3] * 2)
    with refuses(ValueError, ANY, "(3,)", "input_ids"):
        run(weights_for(), IDS[0], labels=IDS)
    with refuses(TypeError, "Weights or a mapping", "NoneType", "weights"):
        run(None, IDS, labels=IDS)
    with pytest.raises(TypeError, match="'label'"):
        run(weights_for(), IDS, label=IDS)
    run(weights_for(), IDS, labels=IDS)  # and nothing is left of the failed ones


def test_a_trace_covers_one_pass():
    with nz.trace() as t, pytest.raises(ValueError, match=r"recorded twice: .* covers one forward pass$"):
        nz.forward(weights_for(), IDS)
        nz.forward(weights_for(), IDS)
    with pytest.raises(KeyError, match=r"no\.such\.name"):
        t["no.such.name"]
    with nz.trace(), refuses(ValueError, ANY, "(3,)", "input_ids"):
        nz.forward(weights_for(), IDS[0])
    with nz.trace() as t:
        nz.forward(weights_for(), IDS)
    assert "pooler.activation" in t


# ------------------------------------------------------------------------------------------------------------ fill_mask


@functools.cache
def shipped():
    return nz.load(), nz.load_tokenizer()


def bare_tokenizer(*tokens):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))


TEXT = "房间很[MASK]净。"

FILLS = [
    bad("none", TypeError, "a str or a list of str", "NoneType", texts=None),
    bad("bytes", TypeError, "a str or a list of str", "bytes", texts=TEXT.encode()),
    bad("a number in a list", TypeError, "a str or a list of str", "int", texts=5),
    bad("no gap", ValueError, "at least one [MASK]", "'房间很干净。'", texts="房间很干净。"),
    bad("empty", ValueError, "at least one [MASK]", "''", texts=""),
    bad("a dict", TypeError, "Weights or None", "dict", weights=dict(shipped()[0])),
    bad("a path", TypeError, "Weights or None", "str", weights="nezha-tiny-zh"),
    bad("a text", TypeError, "a tokenizers.Tokenizer", "str", tokenizer="vocab.txt"),
    bad("a function", TypeError, "a tokenizers.Tokenizer", "function", tokenizer=lambda text: [2, 3]),
    bad(
        "none, and no folder",
        ValueError,
        "one, because the weights were not loaded",
        "None",
        tokenizer=None,
        weights=weights_for(),
    ),
    bad(
        "no [MASK]",
        ValueError,
        "one with [MASK]",
        "one without [MASK]",
        tokenizer=bare_tokenizer("[UNK]"),
    ),
    bad(
        "an empty text has no gap", ValueError, "[MASK]", "without [MASK]", tokenizer=bare_tokenizer("[UNK]"), texts=""
    ),
    bad("another's", ValueError, "ids from 0 to 10", "id ", tokenizer=shipped()[1], weights=weights_for()),
    bad("0", ValueError, "a number from 1 to 7000", "0", top_k=0),
    bad("below 0", ValueError, "a number from 1 to 7000", "-1", top_k=-1),
    bad("more than the vocabulary", ValueError, "a number from 1 to 7000", "7001", top_k=7001),
    bad("a float", TypeError, "an integer", "5.0", top_k=5.0),
    bad("a text", TypeError, "an integer", "'5'", top_k="5"),
    bad("True", TypeError, "an integer", "True", top_k=True),
    bad("None", TypeError, "an integer", "None", top_k=None),
]


@pytest.mark.parametrize(("error", "expected", "got", "arguments"), FILLS)
def test_filling_gaps_is_refused(error, expected, got, arguments):
    with refuses(error, expected, got, next(iter(arguments))):
        nz.fill_mask(**{"texts": TEXT} | arguments)


def test_filling_gaps_needs_a_language_model_and_a_tokenizer(tmp_path):
    weights, tokenizer = shipped()
    headless = nz.Weights(
        {name: array for name, array in weights.items() if not name.startswith("cls.")}, weights.config
    )
    with pytest.raises(ValueError, match=r"^masked_lm needs tensors that the weights do not have: cls.predictions"):
        nz.fill_mask(TEXT, headless, tokenizer)
    weights.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        nz.fill_mask(TEXT, nz.load(tmp_path))
    assert len(nz.fill_mask(TEXT, top_k=np.int64(7000))[0]) == 7000


# ------------------------------------------------------------------------------- inputs for weights on another device


@pytest.mark.parametrize("config", [*CONFIGS.values(), RELATIVE], ids=[*FAMILIES, "relative bert"])
def test_lists_and_numpy_arrays_and_arrays_of_the_device_work(config):
    mask, head_mask, types = [[1, 1, 0], [1, 1, 1]], [0.5, 1.0], [[0, 1, 1]] * 2
    results = []
    for make in (lambda x: x, np.asarray, strict):
        inputs = {"attention_mask": make(mask), "head_mask": make(head_mask), "token_type_ids": make(types)}
        if config.learns_positions:
            inputs["position_ids"] = make([[2, 0, 1]])
        out = nz.masked_lm(strict_weights(config=config), make(IDS), labels=make(IDS), **inputs)
        results.append((to_numpy(out.logits), to_numpy(out.loss)))
    for logits, loss in results[1:]:
        np.testing.assert_array_equal(logits, results[0][0])
        assert loss == results[0][1]


@pytest.mark.parametrize(
    ("error", "expected", "got", "arguments"),
    [
        bad("on another device", ValueError, "device1", "CPU_DEVICE", input_ids=array_api_strict.asarray(IDS)),
        bad("PyTorch's", TypeError, "array_api_strict arrays", "torch.Tensor", input_ids=torch.tensor(IDS)),
        bad("a wrong shape", ValueError, ANY, "(3,): add an axis", input_ids=strict(IDS[0])),
        bad("floats", TypeError, "integers", "float64", input_ids=strict(ONES)),
        bad("beyond the vocabulary in NumPy", ValueError, "values from 0 to 10", "11", input_ids=np.array([[11]])),
        bad(
            "NumPy's",
            TypeError,
            "a float array of array_api_strict",
            "numpy.ndarray",
            inputs_embeds=EMBEDS,
            input_ids=None,
        ),
        bad("on another device", ValueError, "device1", "CPU_DEVICE", attention_mask=array_api_strict.ones((2, 3))),
        bad("a wrong shape", ValueError, "shape (2, 3)", "(2, 4)", attention_mask=strict(np.ones((2, 4)))),
        bad("complex numbers", TypeError, "real numbers", "complex128", attention_mask=strict(ONES + 0j)),
        bad(
            "on another device",
            ValueError,
            "device1",
            "CPU_DEVICE",
            inputs_embeds=array_api_strict.asarray(EMBEDS),
            input_ids=None,
        ),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_for_another_device_are_refused(family, error, expected, got, arguments):
    weights = strict_weights(config=CONFIGS[family])
    refused(nz.forward, weights, error, expected, got, arguments, **{"input_ids": IDS} | arguments)


@pytest.mark.parametrize("family", LEARNED)
@pytest.mark.parametrize(
    ("error", "expected", "got", "arguments"),
    [
        bad("on another device", ValueError, "device1", "CPU", position_ids=array_api_strict.asarray([[0, 1, 2]])),
        bad("a wrong shape", ValueError, "shape (1, 3)", "(1, 2)", position_ids=strict([[0, 1]])),
        bad("one axis", ValueError, "shape (2, 3)", "(3,)", position_ids=strict([0, 1, 2])),
        bad("floats", TypeError, "integers", "float64", position_ids=strict(ONES)),
        bad("too far in NumPy", ValueError, POSITIONS, "5", position_ids=np.array([[0, 1, 5]])),
    ],
)
def test_positions_for_another_device_are_refused(family, error, expected, got, arguments):
    refused(nz.forward, strict_weights(config=LEARNED[family]), error, expected, got, arguments, input_ids=IDS)


# --------------------------------------------------------------------------------------------- inputs are never changed


def all_inputs(head, make, config):
    """Make every argument that a head takes, by a function from arrays."""
    choices = head == "multiple_choice"
    decoder = config.is_decoder
    shape = (2, 2, 3) if choices else (2, 3)
    inputs = {
        "input_ids": make(np.array(CHOICES if choices else IDS)),
        "attention_mask": make(np.tile([1, 1, 0], (*shape[:-1], 1)) if not decoder else np.ones((2, 5), np.int64)),
        "token_type_ids": make(np.ones(shape, np.int64)),
        "head_mask": make(np.array([[1.0, 0.5], [0.0, 1.0]])),
    }
    if decoder:
        inputs["past_key_values"] = tuple(tuple(map(np.copy, arrays)) for arrays in cache(config))
        inputs["encoder_hidden_states"] = STATES.copy()
        inputs["encoder_attention_mask"] = make(np.array([[1, 1, 1, 0]] * 2))
    if config.learns_positions:
        inputs["position_ids"] = make(np.tile([2, 0, 1], (*shape[:-1], 1)))
    if head == "question_answering":
        inputs |= {"start_positions": make(np.array([-3, 1])), "end_positions": make(np.array([2, 9]))}
    elif head != "forward":
        inputs["labels"] = make(np.tile(-100, SHAPES[head][0]) * (np.arange(3)[: SHAPES[head][0][-1]] > 0))
    if head == "pretraining":
        inputs["next_sentence_label"] = make(np.array([0, -100]))
    return inputs


def read_only(array):
    array.flags.writeable = False
    return array


def copied(value):
    if isinstance(value, np.ndarray):
        return value.copy()
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def assert_same(one, other):
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    elif isinstance(one, (list, tuple)):
        for part, same in zip(one, other, strict=True):
            assert_same(part, same)
    else:
        assert one == other and type(one) is type(other)


@pytest.mark.parametrize("make", [np.ndarray.tolist, np.copy, read_only], ids=["lists", "arrays", "read-only arrays"])
@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_inputs_are_never_written_to_and_may_be_read_only(family, head, make):
    config = CONFIGS[family]
    if (family, head) in EVERY_DECODER:
        config = config.replace(is_decoder=True, add_cross_attention=True)
    weights = weights_for(head, config)
    inputs = all_inputs(head, make, config)
    if make is read_only:
        for array in (inputs.get("encoder_hidden_states"), *sum(inputs.get("past_key_values", ()), ())):
            if array is not None:
                read_only(array)
    before = {name: copied(value) for name, value in inputs.items()}
    getattr(nz, head)(weights, **inputs)
    if head != "forward":
        nz.value_and_grad(getattr(nz, head), dropout_seed=3)(weights, **inputs)
    for name, value in inputs.items():
        assert_same(value, before[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_never_written_to_and_may_be_read_only(family):
    embeds, weights = read_only(EMBEDS.copy()), weights_for(config=CONFIGS[family])
    nz.value_and_grad(nz.masked_lm, dropout_seed=3)(weights, inputs_embeds=embeds, labels=IDS)
    np.testing.assert_array_equal(embeds, EMBEDS)
