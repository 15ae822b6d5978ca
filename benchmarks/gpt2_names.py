"""Published GPT-2s by name: their sizes, and a captioner that was trained for one step from each.

The sizes are those of the models' `config.json` on the Hugging Face hub (GPT-2: Radford et al.
2019, "Language Models are Unsupervised Multitask Learners"; distilgpt2: arXiv 1910.01108, six of
GPT-2's layers). The weights are random, and the tokenizer has GPT-2's number of entries.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.real_size import END, byte_pair_tokenizer
from training.captioner.train import train
from training.config import load_config
from training.encoding.encode_dataset import encode_dataset
from training.prepare import prepare

VOCABULARY = 50257


@dataclasses.dataclass(frozen=True)
class NamedGpt2:
    """A published GPT-2.

    Attributes:
        name: Its name on the Hugging Face hub.
        layers: Layers.
        width: Width.
        heads: Heads.
        tuning: `train.tuning` of the step: `lora` where full training would take over 6 GB.
        needed_gb: About the memory that the step and the export take, in GB.
    """

    name: str
    layers: int
    width: int
    heads: int
    tuning: str
    needed_gb: float


#: From the smallest to the largest.
GPT2S = (
    NamedGpt2("distilbert/distilgpt2", 6, 768, 12, "full", 2.5),
    NamedGpt2("openai-community/gpt2", 12, 768, 12, "full", 3.5),
    NamedGpt2("openai-community/gpt2-medium", 24, 1024, 16, "lora", 5.5),
    NamedGpt2("openai-community/gpt2-large", 36, 1280, 20, "lora", 10.5),
    NamedGpt2("openai-community/gpt2-xl", 48, 1600, 25, "lora", 20.0),
)


def save_gpt2(named: NamedGpt2, folder: Path) -> None:
    """Write a folder as `save_pretrained` writes GPT-2 and its tokenizer, with random weights."""
    torch.manual_seed(0)
    end = VOCABULARY - 1
    sizes = GPT2Config(
        vocab_size=VOCABULARY,
        n_layer=named.layers,
        n_embd=named.width,
        n_head=named.heads,
        bos_token_id=end,
        eos_token_id=end,
    )
    GPT2LMHeadModel(sizes).save_pretrained(folder)
    tokenizer = byte_pair_tokenizer(VOCABULARY)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


def train_gpt2(named: NamedGpt2, work: Path, tokens: int) -> None:
    """Train a captioner of a GPT-2 for one step, with the encoder of the drawn scenes.

    Args:
        named: Which GPT-2.
        work: A folder; `checkpoint` in it gets the captioner.
        tokens: Longest caption, in tokens.
    """
    save_gpt2(named, work / "gpt2")
    # Two training pictures of five captions each: one batch, so one step is an epoch.
    fractions = "{train: 0.5, val: 0.25, test: 0.25, compositional: 0}"
    config = load_config(
        [
            *("scenes.count=4", f"scenes.fractions={fractions}", f"scenes.out={work / 'scenes'}"),
            *(f"features.data={work / 'scenes'}", f"features.out={work / 'features'}"),
            *("features.kind=pooled", "features.workers=0"),
            *(f"train.data={work / 'scenes'}", f"train.features={work / 'features'}"),
            *(f"train.{name}={work / name}" for name in ("work", "curves")),
            *(f"train.out={work / 'checkpoint'}", "train.epochs=1", "train.batch_size=10"),
            *("train.captions_together=1", "train.pair_prior=[]", "train.turned=[]"),
            *("train.mapper.kind=mlp", "train.mapper.prefix_length=10", "train.precision=32-true"),
            *(f"train.gpt2.base={work / 'gpt2'}", f"train.tuning={named.tuning}"),
            *("train.learning_rate=1e-4", "train.max_tokens=16"),
            *("+train.trainer.enable_progress_bar=false", "generation.num_beams=2"),
            *(f"generation.max_tokens={tokens}", f"generation.min_tokens={tokens}"),
        ]
    )
    prepare(config)
    encode_dataset(config.features)
    with torch.enable_grad():
        train(config)
