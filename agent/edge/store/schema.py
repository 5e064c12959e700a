"""The tables of the device's database, from the first version on. Published migrations are never edited."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE chain (id INTEGER PRIMARY KEY CHECK (id = 1), chain BLOB NOT NULL);
    CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
        sets BLOB NOT NULL,
        model BLOB NOT NULL,
        residual BLOB NOT NULL
    );
    CREATE TABLE work (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,
        commit_raw BLOB NOT NULL,
        reveal_raw BLOB NOT NULL,
        residual BLOB NOT NULL,
        samples INTEGER NOT NULL,
        training_ms INTEGER NOT NULL
    );
    CREATE TABLE outbox (digest BLOB PRIMARY KEY, round INTEGER NOT NULL, raw BLOB NOT NULL);
    CREATE TABLE rounds (
        round INTEGER PRIMARY KEY,
        model_hash BLOB NOT NULL,
        is_accepted INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        training_ms INTEGER NOT NULL,
        bytes_up INTEGER NOT NULL,
        bytes_down INTEGER NOT NULL
    );
    """,
    # Version 2: devices that mine.
    """
    ALTER TABLE work ADD COLUMN will_score INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE scores (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,
        commit_raw BLOB NOT NULL,
        reveal_raw BLOB NOT NULL
    );
    """,
    # Version 3: what is large is written once. A vector of encoding 0 is little-endian int32, of encoding 1 packed.
    # The model is a base and the steps since; a residual has a number, 0 for all zeros, and moves from the work to the
    # position by it; the outbox has no second copy (an empty `raw`) of what the work holds.
    """
    CREATE TABLE residuals (id INTEGER PRIMARY KEY CHECK (id > 0), encoding INTEGER NOT NULL, vector BLOB NOT NULL);
    INSERT INTO residuals SELECT 1, 0, residual FROM position;
    INSERT INTO residuals SELECT 2, 0, residual FROM work;
    CREATE TABLE model_base (
        id INTEGER PRIMARY KEY CHECK (id = 1), encoding INTEGER NOT NULL, vector BLOB NOT NULL);
    INSERT INTO model_base SELECT 1, 0, model FROM position;
    CREATE TABLE model_steps (number INTEGER PRIMARY KEY, vector BLOB NOT NULL);
    CREATE TABLE position_2 (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
        sets BLOB NOT NULL,
        residual INTEGER NOT NULL
    );
    INSERT INTO position_2 SELECT id, header, certificate, sets, 1 FROM position;
    DROP TABLE position;
    ALTER TABLE position_2 RENAME TO position;
    CREATE TABLE work_2 (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,
        commit_raw BLOB NOT NULL,
        reveal_raw BLOB NOT NULL,
        residual INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        training_ms INTEGER NOT NULL,
        will_score INTEGER NOT NULL
    );
    INSERT INTO work_2 SELECT id, round, commit_raw, reveal_raw, 2, samples, training_ms, will_score FROM work;
    DROP TABLE work;
    ALTER TABLE work_2 RENAME TO work;
    CREATE TABLE outbox_2 (digest BLOB PRIMARY KEY, round INTEGER NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;
    INSERT INTO outbox_2 SELECT digest, round, raw FROM outbox;
    DROP TABLE outbox;
    ALTER TABLE outbox_2 RENAME TO outbox;
    ALTER TABLE rounds ADD COLUMN energy_mj INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rounds ADD COLUMN training_mj INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rounds ADD COLUMN energy_source INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rounds ADD COLUMN disk_bytes INTEGER;
    """,
    # Version 4: what the downstream rule carries into the open round is kept among the residuals; -1 is unknown.
    """
    ALTER TABLE position ADD COLUMN carried INTEGER NOT NULL DEFAULT -1;
    """,
)
