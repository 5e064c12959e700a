"""The schema of samples.db; published migrations are never edited."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE boots (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        offset_us INTEGER NOT NULL,
        is_trusted INTEGER NOT NULL,
        first_us INTEGER NOT NULL,
        last_us INTEGER NOT NULL
    );
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        channels TEXT NOT NULL,
        UNIQUE (source, channels)
    );
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        boot INTEGER NOT NULL,
        first_us INTEGER NOT NULL,
        last_us INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        data BLOB NOT NULL
    );
    CREATE INDEX blocks_by_stream ON blocks (stream, id);
    CREATE TABLE sources (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        detail TEXT NOT NULL,
        samples INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        boot INTEGER NOT NULL,
        seen_us INTEGER NOT NULL
    );
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY,
        boot INTEGER NOT NULL,
        time_us INTEGER NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    """,
)
