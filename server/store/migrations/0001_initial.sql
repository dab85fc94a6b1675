-- Jobs. `job` is the truth (a serialized finetuned.v1.Job); the columns are what is searched and sorted by.
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  state INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  create_time INTEGER NOT NULL,
  job BLOB NOT NULL
);
CREATE INDEX jobs_by_time ON jobs (create_time, job_id, state, owner);
CREATE INDEX jobs_by_rank ON jobs (rank, create_time, job_id, state, owner);
CREATE INDEX jobs_by_state_time ON jobs (state, create_time, job_id, owner);
CREATE INDEX jobs_by_state_rank ON jobs (state, rank, create_time, job_id, owner);
CREATE INDEX jobs_by_owner_state_time ON jobs (owner, state, create_time, job_id);
CREATE INDEX jobs_by_owner_time ON jobs (owner, create_time, job_id);

-- Which job a client's request made. A row outlives its job: a request id never makes a second one.
CREATE TABLE requests (
  request_id TEXT NOT NULL PRIMARY KEY,
  job_id TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE labels (
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
  PRIMARY KEY (name, value, create_time, job_id)
) WITHOUT ROWID;
CREATE INDEX labels_by_job ON labels (job_id);

-- The log of each job: seq from 1 without gaps; `event` is a serialized finetuned.v1.JobEvent.
CREATE TABLE events (
  job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  event BLOB NOT NULL,
  PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;

CREATE TABLE attempts (
  job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  token TEXT NOT NULL UNIQUE,
  pid INTEGER NOT NULL,
  pid_start_ticks INTEGER NOT NULL,
  device TEXT NOT NULL,
  reserved_bytes INTEGER NOT NULL,
  start_time INTEGER NOT NULL,
  end_time INTEGER,
  acknowledged_spool_seq INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  PRIMARY KEY (job_id, number)
) WITHOUT ROWID;
CREATE INDEX attempts_live ON attempts (job_id) WHERE end_time IS NULL;

CREATE TABLE uploads (
  sha256 TEXT NOT NULL PRIMARY KEY,
  size_bytes INTEGER NOT NULL,
  name TEXT NOT NULL,
  create_time INTEGER NOT NULL
) WITHOUT ROWID;
