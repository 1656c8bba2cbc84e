"""Which of the transformers' classes trains a checkpoint on text, and a model without weights, to look at.

Most families are loaded as causal language models. Those that exist only with vision or audio around their text are
loaded whole, as image-text-to-text models; their text part is what is trained and aligned.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from innerlingua.errors import ModelError

__all__ = ["empty_model", "language_model_class"]


def language_model_class(config: PreTrainedConfig) -> Any:
    """The Auto class that loads the language model of `config`: a causal language model where there is one.

    Raises `ModelError` for a configuration that neither knows, such as an encoder-decoder's or a classifier's.
    """
    remote = vars(config).get("auto_map") or {}
    for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in auto_class._model_mapping or auto_class.__name__ in remote:
            return auto_class
    raise ModelError(
        f"{config.model_type} is no causal language model and no image-text-to-text model of transformers: such a "
        "model is not trained by next-token prediction on one text"
    )


def empty_model(config: PreTrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of `config` on the meta device: every parameter with its name, shape and type, and no memory for
    any."""
    with torch.device("meta"):
        model = language_model_class(config).from_config(config, trust_remote_code=trust_remote_code)
    assert isinstance(model, PreTrainedModel)
    return model
