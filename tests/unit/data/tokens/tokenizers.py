"""Tiny real tokenizers with the chat templates that matter, made here so that tests need no download."""

from collections.abc import Sequence
from functools import lru_cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

#: As SmolLM2's: a default system turn is written where the conversation has none.
CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are tiny.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: As Llama 3's: BOS once, content trimmed, nothing after the end-of-turn token.
LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
#: Ends no turn with a special token.
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
#: Upper-cases every turn but the last.
REWRITES_EARLIER = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] if loop.last else message['content'] | upper }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Drops what an earlier assistant turn said before ``</think>``, as reasoning models' templates do.
STRIPS_THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] if loop.last else message['content'].split('</think>')[-1] }}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>")
_CORPUS = ("hello world, how are you? I am fine.\n\nThank you.\n\n", "answer: yes\n\n\nno")


@lru_cache
def _bytes_tokenizer(gpt2: bool = False) -> str:
    """Byte-level BPE that merges blank lines, as Llama 3's and Qwen's do; or one that cuts words as GPT-2's does.

    GPT-2's leaves the last of several blanks to the word behind them: two newlines at the end of a text are one token,
    and before a word they are two.
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r"\n+| ?[^\s]+|\s"), behavior="isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if gpt2 else pre_tokenizers.Sequence([words, whole])
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS * 4, trainers.BpeTrainer(vocab_size=320, special_tokens=list(_SPECIAL), initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return str(tokenizer.to_str())


def make_tokenizer(
    template: str | None = CHATML,
    eos: str | None = "<|im_end|>",
    bos: str | None = "<s>",
    *,
    more: Sequence[str] = (),
    gpt2: bool = False,
) -> PreTrainedTokenizerFast:
    """A tokenizer that adds BOS by itself when asked to add special tokens.

    Args:
        template: Its chat template.
        eos: Its EOS.
        bos: Its BOS.
        more: Special tokens of the template's family.
        gpt2: Whether it cuts words as GPT-2's does.
    """
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(_bytes_tokenizer(gpt2)), bos_token=bos, eos_token=eos, pad_token=eos
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True) for t in (*_SPECIAL, *more)]},
    )
    tokenizer.chat_template = template
    return tokenizer


#: As Qwen3's: an empty thought stands before the last answer and before no other.
THINKS_LAST = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
