"""`flchain model build` and `flchain model show`."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain_edge.model.tflite import RUNTIME_NAME, SIGNATURES, TfliteModel, read_runtime_version
from flchain_edge.process.chain_files import load_trainable
from flchain_edge.process.command_line import CommandParser, add_command
from tools.modelbuilder.zoo import ARCHITECTURES


def main(argv: Sequence[str]) -> int:
    """Run `build` or `show`. Raise ConfigError."""
    args = _build_parser().parse_args(argv)
    if args.command == "build":
        return _build(args.keras, Path(args.out), args.seed)
    return _show(Path(args.file))


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain model",
        description="Build and inspect models that train on devices.",
        epilog="examples:\n  flchain model show model.tflite\n  flchain model build --keras cnn1d --out model.tflite",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = add_command(commands, "build", "make a trainable .tflite file from a Keras model (needs TensorFlow)")
    build.add_argument(
        "--keras", required=True, metavar="NAME|FILE", help=f"{', '.join(ARCHITECTURES)}, or a .keras file"
    )
    build.add_argument("--out", required=True, metavar="FILE", help="the .tflite file to write")
    build.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides a built-in model's first weights (default 0)"
    )
    show = add_command(commands, "show", "test a .tflite file in a child process, and describe it")
    show.add_argument("file", metavar="FILE", help="a .tflite file")
    return parser


def _build(source: str, out: Path, seed: int) -> int:
    from tools.modelbuilder.build import build_tflite, verify_built
    from tools.modelbuilder.keras_models import load_keras

    keras_model = load_keras(source, seed)
    model = build_tflite(keras_model)
    verify_built(keras_model, model)
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_bytes(model)
        os.replace(partial, out)  # so that the final name never has half a model
    except OSError as error:
        raise ConfigError((f"--out {out}: {error.strerror}",)) from error
    _describe(model)
    return 0


def _show(path: Path) -> int:
    _describe(load_trainable(path, "model"))
    return 0


def _describe(model: bytes) -> None:
    loaded = TfliteModel(model)
    print(f"parameters  {loaded.parameters_count}")
    print(f"input       {' x '.join(map(str, loaded.input_shape))} float32")
    print(f"classes     {loaded.classes}")
    print(f"signatures  {' '.join(SIGNATURES)}")
    print(f"bytes       {len(model)}")
    print(f"sha256      {hashlib.sha256(model).hexdigest()}")
    print(f"runtime     {RUNTIME_NAME} {read_runtime_version()}")
