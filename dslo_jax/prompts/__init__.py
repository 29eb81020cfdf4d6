"""Class names, and their text features.

A class is one name or several synonyms. Class lists come from Python, from a command
line or from a file; each is read in the one way that it can be meant, or refused. Every
name is put into every template, the text network encodes these prompts, and the mean of
their features is the feature of the name.
"""

from dslo_jax.prompts.background import (
    BACKGROUNDS as BACKGROUNDS,
    with_background as with_background,
)
from dslo_jax.prompts.class_files import read_class_file as read_class_file
from dslo_jax.prompts.class_list import (
    ClassList as ClassList,
    parse_classes as parse_classes,
)
from dslo_jax.prompts.embedding import embed_names as embed_names
from dslo_jax.prompts.grammar import (
    classes_of_options as classes_of_options,
    split_classes as split_classes,
)
from dslo_jax.templates import (
    IMAGENET_TEMPLATES as IMAGENET_TEMPLATES,
    check_templates as check_templates,
)
from dslo_jax.tokens import (
    LazyTokenizer as LazyTokenizer,
    load_tokenizer as load_tokenizer,
    tokenize as tokenize,
)
