"""What a TFLite runtime has to offer: the part of its Interpreter that is called.

Another interface of a runtime fits behind it, as a test shows for ai-edge-litert's CompiledModel, which is not offered
(docs/decisions/0016-pythons-and-runtimes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class SignatureRunner(Protocol):
    """Run one signature of a model."""

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Return the outputs by name; an input may have another batch size than in the call before."""

    def get_input_details(self) -> Mapping[str, Mapping[str, Any]]:
        """Return by name of the input, under "shape_signature": the sizes, -1 where one is open."""

    def get_output_details(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the same of the outputs."""


class Interpreter(Protocol):
    """A loaded model."""

    def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
        """Return the names of "inputs" and "outputs" of each signature."""

    def get_signature_runner(self, name: str) -> SignatureRunner:
        """Return the runner of a signature. All of a model share its variables."""


OpenModel = Callable[..., Interpreter]
"""Called with model_content, the file's bytes, and num_threads. Raises ValueError or RuntimeError if it is no model."""
