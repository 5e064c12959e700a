"""Where a library has switched subnormal numbers off, everything that is hashed is the same to the bit.

tflite-runtime 2.14 does that on ARM, and any library built with -ffast-math may.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.flush_to_zero import IS_KNOWN_HERE, are_subnormals_on

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not IS_KNOWN_HERE, reason="this processor's switch is not known here")

# What these hold is vectors of bytes and properties of everything between a trainer's float32 and a hash.
HASHED = (
    "tests/unit/base/test_fixedpoint.py",
    "tests/unit/codecs/test_codecs.py",
    "tests/unit/codecs/test_codec_kinds.py",
    "tests/unit/aggregation/test_aggregation.py",
    "tests/unit/privacy/test_privacy.py",
    "tests/unit/rules/test_settlement.py",
    "tests/unit/light/test_models.py",
    "tests/unit/wire/test_form.py",
    "tests/property/test_codecs_property.py",
    "tests/property/test_wire_property.py",
)

UPDATE_SCRIPT = """
import sys
import numpy as np
from flchain.aggregation import AGGREGATION_RULES, WeightedUpdate
from flchain.codecs import CODECS, compute_codec_seed
from flchain.base.fixedpoint import add, to_fixed, to_float, encode_vector
from flchain.privacy import MECHANISMS
from tests.support.flush_to_zero import are_subnormals_on, switch_subnormals_off
from tests.vectors.make_codecs import LEVELS

if sys.argv[1] == "off":
    switch_subnormals_off()
    assert not are_subnormals_on()
    assert np.array([1e-45], np.float32)[0] * np.float32(1.0) == 0.0

def draw(seed):  # float32 of every exponent, subnormal ones included, by their bits
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32)
    exponents = (bits >> 23) & 0xFF
    return np.where(exponents < 137, bits, bits & 0x807FFFFF).view(np.float32)

seed = compute_codec_seed(bytes(32), 7, bytes(20))
for name, mechanism in MECHANISMS.items():
    updates = []
    for number in range(5):
        noised = mechanism(draw(number), 1e-3 * 10**number, 0.5, draw(100 + number) / np.float32(2.0**8))
        delta = to_fixed(noised)
        assert to_fixed(to_float(delta)).tobytes() == delta.tobytes() or abs(delta).max() > 2**24
        updates.append(WeightedUpdate(bytes([number]) * 20, 1 + number, delta))
        print(name, encode_vector(delta).hex())
    for name, rule in AGGREGATION_RULES.items():
        total = rule.aggregate(tuple(updates))
        print(name, encode_vector(total).hex(), to_float(add(total, updates[0].delta)).tobytes().hex())
    for codec, levels in LEVELS.items():
        for level in levels:
            encoded = CODECS[codec].encode(updates[2].delta, np.zeros(4000, np.int32), level, seed)
            print(codec, level, encoded.payload.hex(), encoded.residual.tobytes().hex())
"""


def run(*arguments: str) -> str:
    paths = os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
    environ, command = {**os.environ, "PYTHONPATH": paths}, (sys.executable, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environ)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_an_update_is_the_same_to_the_bit() -> None:
    """From a delta of any float32, subnormal ones included, to payloads and aggregates: the same bytes on and off."""
    on, off = run("-c", UPDATE_SCRIPT, "on"), run("-c", UPDATE_SCRIPT, "off")
    assert on == off
    assert len(on.splitlines()) > 40


def test_what_is_hashed_keeps_its_vectors() -> None:
    """The vectors and properties of codecs, rules, models and messages hold in a process without subnormal numbers."""
    printed = run("-m", "pytest", "-q", "-p", "tests.support.flush_to_zero", "-p", "no:cacheprovider", *HASHED)
    assert " passed" in printed


def test_a_runtime_that_switches_them_off_changes_nothing_here(tmp_path: Path) -> None:
    """After the import of a runtime that does so, this process counts as before, and numpy does not warn."""
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "from tests.support.flush_to_zero import are_subnormals_on, switch_subnormals_off\n"
        "switch_subnormals_off()\nassert not are_subnormals_on()\nclass Interpreter: ...\n"
    )
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport numpy as np\n"
        "np.__version__ = '1.26.4'\n"  # a newer one is no reason to look for another runtime here
        "from flchain_edge.model import tflite\nfrom tests.support.flush_to_zero import are_subnormals_on\n"
        "assert tflite._INTERPRETER.__module__ == 'tflite_runtime.interpreter'\n"
        "np.finfo(np.float32).smallest_subnormal\nprint(sys.modules['tflite_runtime'].__file__, are_subnormals_on())"
    )
    assert run("-W", "error", "-c", script).split() == [str(package / "__init__.py"), "True"]
    assert are_subnormals_on()
