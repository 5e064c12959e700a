"""Frames between the agent and its worker processes, over a socket pair, with raw vectors in them.

Strictly one job at a time: the agent sends CONFIGURE once, then a job, and at most one CANCEL until the answer has
arrived. So a worker that is held for days keeps one vector waiting, not one a round.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

HEADER = struct.Struct("!BQII")
"""Kind, number (the round), bytes of meta, bytes of payload."""
META_BYTES_MAX = 64 * 1024


class FrameKind(IntEnum):
    """Kinds of frames: from the agent up to CANCEL, from the worker from READY on."""

    CONFIGURE = 1  # meta: a WorkerSpec
    TRAIN = 2  # payload: the model vector, int32
    SCORE = 3  # payload: the model vector, int32
    CANCEL = 4  # the running job is no longer needed
    READY = 5  # payload: the file's initial model vector, int32
    REFUSED = 6  # meta: problems of the configuration; the worker ends
    BEAT = 7  # the job goes on; meta: steps done, of how many
    DONE = 8  # meta and payload: what the job gave
    DROPPED = 9  # cancelled
    FAILED = 10  # meta: cause; the worker goes on
    NOTE = 11  # meta: text and why, for the log; the job goes on


@dataclass(frozen=True)
class Frame:
    """One message. Vectors are sent in the machine's own byte order: both ends are on one machine."""

    kind: FrameKind
    number: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; it reads model and examples itself."""

    model: str
    model_digest: str
    """SHA-256 of the model file, hexadecimal."""
    examples: str
    sensed: dict[str, Any] = field(default_factory=dict)
    """A DataSource of agent.edge.data.dataset if examples are windows of the sensors; otherwise empty."""
    holdout_percent: int = 0
    """Percent of the rows kept for scoring and never trained on. 0 if this device does not mine."""
    is_scorer: bool = False
    """True: works on the held-out rows. False: on all others."""
    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.01
    needs_noise: bool = False
    threads: int = 1
    niceness: int = 0
    memory_bytes_max: int = 0
    """Limit of the process's data segment; 0 if a control group has the limit, or there is none."""


def encode_frame(frame: Frame) -> bytes:
    """Return header and meta; the payload is sent separately after them, so that it need not be copied."""
    meta = json.dumps(frame.meta).encode() if frame.meta else b""
    assert len(meta) <= META_BYTES_MAX, len(meta)
    return HEADER.pack(frame.kind, frame.number, len(meta), len(frame.payload)) + meta


def encode_spec(spec: WorkerSpec) -> Frame:
    """Return the frame that a worker waits for first."""
    return Frame(FrameKind.CONFIGURE, meta=asdict(spec))


def decode_header(data: bytes, payload_bytes_max: int) -> tuple[FrameKind, int, int, int]:
    """Return kind, number, bytes of meta and bytes of payload. Raises ValueError if this is not a frame."""
    kind, number, meta_bytes, payload_bytes = HEADER.unpack(data)
    if meta_bytes > META_BYTES_MAX or payload_bytes > payload_bytes_max:
        raise ValueError(f"a frame of {meta_bytes} and {payload_bytes} bytes")
    return FrameKind(kind), number, meta_bytes, payload_bytes


def decode_meta(data: bytes) -> dict[str, Any]:
    """Return the meta. Raises ValueError if it is not a JSON object."""
    meta = json.loads(data) if data else {}
    if not isinstance(meta, dict):
        raise ValueError("meta is not an object")
    return meta
