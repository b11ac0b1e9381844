"""Makes the folders beside this file: small models with random weights, as the transformers library saves them, and what
that library computes with them. `docs/models.md` says when to run it.

    python -m venv venv && venv/bin/pip install torch transformers safetensors tokenizers
    venv/bin/python make.py                          the random models
    venv/bin/python make.py minilm FOLDER            minilm.safetensors, from the folder with MiniLM-L6's weights
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def randomise(model, seed):
    """Weights far from their initial values, so that a swapped or forgotten tensor shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_scale else 0.2 * noise)
    return model.eval()


def save(name, model, tensors):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    for extra in ["generation_config.json"]:
        (folder / extra).unlink(missing_ok=True)
    outputs = {key: value.detach().contiguous() for key, value in tensors.items()}
    as_int = {key: value.int() if value.dtype == torch.int64 else value for key, value in outputs.items()}
    save_file(as_int, folder / "reference.safetensors")
    return folder


def text_batch(vocabulary, length, padding, generator):
    """Two sequences of `length` tokens, the second padded on the right after two thirds."""
    ids = torch.randint(5, vocabulary, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 2 * length // 3 :] = 0
    ids[mask == 0] = padding
    return ids, mask


def text_models():
    generator = torch.Generator().manual_seed(7)
    sizes = dict(vocab_size=60, num_labels=3)
    wide = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, **wide, max_position_embeddings=24)
    )
    distilbert = transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(**sizes, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=24)
    )
    roberta = transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(
            **sizes, **wide, max_position_embeddings=26, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
        )
    )
    for seed, (name, model) in enumerate([("bert", bert), ("distilbert", distilbert), ("roberta", roberta)]):
        randomise(model, seed)
        padding = model.config.pad_token_id
        ids, mask = text_batch(60, 18, padding, generator)
        inputs = dict(input_ids=ids, attention_mask=mask)
        if name == "bert":
            inputs["token_type_ids"] = (torch.arange(18) >= 7).long().expand(2, -1)
        output = model(**inputs, output_hidden_states=True)
        folder = save(name, model, {**inputs, "hidden": output.hidden_states[-1], "logits": output.logits})
        tokeniser(roberta=name == "roberta").save(str(folder / "tokenizer.json"))


def tokeniser(roberta):
    """Every word is cut into letters, so that sixty pieces are enough."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    unknown = "<unk>" if roberta else "[UNK]"
    pieces = special + LETTERS + ["##" + letter for letter in LETTERS] + [".", "!"]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def image_models():
    generator = torch.Generator().manual_seed(11)
    wide = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    image = dict(image_size=20, patch_size=4, num_channels=3, num_labels=3)
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**wide, **image))
    deit = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**wide, **image))
    swin = transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=56, patch_size=4, num_channels=3, num_labels=3, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
            window_size=7, mlp_ratio=2.0,
        )
    )  # fmt: skip
    for seed, (name, model) in enumerate([("vit", vit), ("deit", deit), ("swin", swin)], start=10):
        randomise(model, seed)
        side = model.config.image_size
        pixels = torch.randn((2, 3, side, side), generator=generator)
        output = model(pixels, output_hidden_states=True)
        body = getattr(model, name)
        save(name, model, {"pixels": pixels, "hidden": body(pixels).last_hidden_state, "logits": output.logits})


def learn_by_heart(model, ids, mask, generator):
    """Random translations of 4 and 9 tokens, half learnt: what is decoded then neither repeats one token nor is certain."""
    labels = torch.randint(5, 59, (2, 10), generator=generator)
    labels[0, 4], labels[0, 5:], labels[1, 9] = 0, -100, 0
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    for _ in range(40):
        loss = model.train()(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def marian():
    generator = torch.Generator().manual_seed(13)
    config = transformers.MarianConfig(
        dropout=0.0, vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=24,
        activation_function="swish", scale_embedding=True, pad_token_id=59, eos_token_id=0, decoder_start_token_id=59,
        forced_eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(20)
    model = transformers.MarianMTModel(config)
    with torch.no_grad():
        for positions in [model.model.encoder.embed_positions, model.model.decoder.embed_positions]:
            positions.weight.copy_(positions.create_weight())
    ids, mask = text_batch(59, 18, 59, generator)
    learn_by_heart(model, ids, mask, generator)
    with torch.no_grad():
        model.final_logits_bias.copy_(0.5 * torch.randn(model.final_logits_bias.shape, generator=generator))
    target, _ = text_batch(59, 12, 59, generator)
    target[:, 0] = 59
    output = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target)
    quiet = dict(input_ids=ids, attention_mask=mask, max_length=16, bad_words_ids=[[59]], do_sample=False)
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": target,
        "encoder_hidden": output.encoder_last_hidden_state,
        "logits": output.logits,
        "greedy": model.generate(**quiet, num_beams=1),
        "beam": model.generate(**quiet, num_beams=4, early_stopping=True, length_penalty=1.0),
    }
    save("marian", model, tensors)


SENTENCES = [
    "a masterpiece four years in the making .",
    "the plot is nothing but boilerplate cliches from start to finish",
    "Transformers skip blocks.",
    "I didn't expect much, and that is exactly what I got: very little!",
    "it's a charming and often affecting journey .",
    "An unusually long sentence keeps on going, past commas and clauses, in order to see whether hidden states at later"
    " positions agree as well as those at the beginning do.",
    "naïve café déjà-vu 東京 😀",
    "ok",
]


def minilm(folder):
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval().float()
    rows = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask[:, :, None].float()
    last = mask.sum(1) - 1
    chosen = torch.stack([torch.zeros_like(last), last // 2, last], 1)  # first, middle and last real token
    at_chosen = torch.stack([hidden[row, chosen[row]] for row in range(len(rows))])
    tensors = {
        "input_ids": ids.int(),
        "attention_mask": mask.int(),
        "positions": chosen.int(),
        "hidden": at_chosen,
        "mean": (hidden * weights).sum(1) / weights.sum(1),
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "minilm.safetensors")


if __name__ == "__main__":
    if sys.argv[1:2] == ["minilm"]:
        minilm(sys.argv[2])
    else:
        text_models()
        image_models()
        marian()
