"""What a user hands in from Python (a model, a tokenizer, rows), checked at the door: what is wrong gets a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from innerlingua.anatomy import check_present
from innerlingua.data import read_pairs, tokenize_pairs
from innerlingua.data.tokenised import refuse_misfits
from innerlingua.errors import DataError, ModelError, RecipeError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel
    from trl import SFTConfig

__all__ = ["check_args", "check_base_model", "check_batch_size", "check_tokenizer", "rows_of", "tokenised_rows"]

_PER_TOKEN = ("labels", "span_ids", "anchor_labels", "anchor_span_ids")


def check_base_model(model: Any) -> PreTrainedModel:
    """`model` itself when it is a loaded transformers model without wrappers and adapters, else `ModelError`."""
    from peft import PeftModel
    from transformers import PreTrainedModel

    if isinstance(model, str):
        raise ModelError(f"the model is to be loaded first: AutoModelForCausalLM.from_pretrained({model!r})")
    if isinstance(model, PeftModel):
        raise ModelError(
            "the prior is that of the model without adapters: compute it before get_peft_model, and give the adapters "
            "to the trainer (peft_config=...)"
        )
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"the model must be a loaded transformers model without wrappers, not {_kind(model)}")
    check_present(model)
    return model


def check_tokenizer(tokenizer: Any) -> None:
    """Raise `DataError` unless `tokenizer` is one of transformers."""
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        hint = ": give its .tokenizer" if hasattr(tokenizer, "tokenizer") else ""
        raise DataError(
            f"the tokenizer must be the model's, as AutoTokenizer.from_pretrained loads it, not {_kind(tokenizer)}"
            f"{hint}"
        )


def check_args(args: Any) -> None:
    """Raise `RecipeError` unless `args` is None or a `trl.SFTConfig`."""
    if args is None:
        return
    from trl import SFTConfig

    if not isinstance(args, SFTConfig):
        raise RecipeError(f"args must be the trl.SFTConfig of the training, not {_kind(args)}")


def check_batch_size(batch_size: Any) -> None:
    """Raise `RecipeError` unless `batch_size` is a whole number of rows."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise RecipeError(f"batch_size is how many texts go through the model at once, at least 1, not {batch_size!r}")


def rows_of(dataset: Any) -> Dataset:
    """`dataset` as a `datasets.Dataset`; a list of dictionaries becomes one. Raises `DataError` for anything else."""
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, list | tuple):
        strange = next((place for place, row in enumerate(dataset) if not isinstance(row, Mapping)), None)
        if strange is not None:
            raise DataError(f"row {strange} of the list is no dictionary, but {_kind(dataset[strange])}")
        if not dataset:
            raise DataError("the list of rows is empty")
        # `from_list` takes the columns of the first row for those of all.
        columns = dict.fromkeys(column for row in dataset for column in row)
        try:
            return Dataset.from_list([{column: row.get(column) for column in columns} for row in dataset])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"the rows of the list differ in the types of their values: {error}") from error
    remedy = "give a datasets.Dataset, or a list of dictionaries"
    if isinstance(dataset, DatasetDict | IterableDatasetDict):
        remedy = f"choose a split of it: {', '.join(f'[{name!r}]' for name in dataset)}"
    elif isinstance(dataset, str):
        remedy = f"read it first: innerlingua.read_pairs({dataset!r}).dataset"
    elif isinstance(dataset, IterableDataset):
        remedy = "a stream is read once and has no length: Dataset.from_list(list(stream)) holds it"
    elif hasattr(dataset, "dataset"):
        remedy = "give its .dataset"
    elif isinstance(dataset, Iterable):
        remedy = "rows are read more than once, so hold them in a list: list(rows)"
    raise DataError(f"the rows are {_kind(dataset)}: {remedy}")


def tokenised_rows(dataset: Any, tokenizer: Any, args: SFTConfig | None = None) -> Dataset:
    """`dataset` as tokenised rows; rows of text are checked and tokenised as `Trainer` does it with these `args`.

    Raises `DataError` for rows of text that cannot be used, and for tokenised ones that do not fit together.
    """
    rows = rows_of(dataset)
    if "input_ids" in rows.column_names:
        refuse_misfits(rows, "the rows", _PER_TOKEN)
        return rows
    check_tokenizer(tokenizer)
    # Ids and anchors are checked; which languages there are is the caller's business.
    known = {str(code): str(code) for code in rows["language"]} if "language" in rows.column_names else {}
    checked = read_pairs(rows, languages=known, missing_anchor="keep", same_as_anchor="keep").dataset
    if args is None:
        return tokenize_pairs(checked, tokenizer).dataset
    return tokenize_pairs(
        checked,
        tokenizer,
        max_length=args.max_length,
        completion_only_loss=args.completion_only_loss,
        assistant_only_loss=args.assistant_only_loss,
    ).dataset


def _kind(value: Any) -> str:
    """The type of `value`, in words for a user."""
    name = type(value).__name__
    return "None" if value is None else f"a{'n' if name[0] in 'AEIOUaeiou' else ''} {name}"
