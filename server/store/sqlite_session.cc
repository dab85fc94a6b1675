#include "server/store/sqlite_session.h"

#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "server/store/job_state.h"

namespace finetuned {
namespace {

// The least int64 stands for "not set": absl::InfinitePast() has no Unix time.
int64_t Nanos(absl::Time time) {
  return time == absl::InfinitePast() ? std::numeric_limits<int64_t>::min()
                                      : absl::ToUnixNanos(time);
}
absl::Time FromNanos(int64_t nanos) {
  return nanos == std::numeric_limits<int64_t>::min() ? absl::InfinitePast()
                                                      : absl::FromUnixNanos(nanos);
}

absl::Status NoSuchJob(std::string_view job_id) {
  return absl::NotFoundError(absl::StrCat(
      "job '", std::string(job_id), "' does not exist; `finetune list` shows the jobs there are"));
}

constexpr char kAttemptColumns[] =
    "job_id, number, token, pid, pid_start_ticks, device, reserved_bytes, start_time, end_time, "
    "acknowledged_spool_seq, outcome";

}  // namespace

int64_t TimestampNanos(const google::protobuf::Timestamp& time) {
  const absl::Time t = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  return absl::ToUnixNanos(t);  // saturates
}

absl::StatusOr<v1::Job> ReadJob(const Statement& row) {
  v1::Job job;
  const std::string_view bytes = row.Bytes(0);
  if (!job.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError(
        "a stored job cannot be read; check the database: `finetuned check`");
  }
  job.set_last_seq(row.Int(1));
  return job;
}

// Reads
// ---------------------------------------------------------------------------------------------------------------

absl::Status SqliteSession::RequireJob(std::string_view job_id) {
  Statement statement = db_.Prepare("SELECT 1 FROM jobs WHERE job_id = ?1");
  statement.Bind(1, job_id);
  FT_ASSIGN_OR_RETURN(const bool found, statement.Step());
  return found ? absl::OkStatus() : NoSuchJob(job_id);
}

absl::StatusOr<v1::Job> SqliteSession::GetJob(std::string_view job_id) {
  static const std::string sql =
      absl::StrCat("SELECT ", kJobColumns, " FROM jobs j WHERE j.job_id = ?1");
  Statement statement = db_.Prepare(sql);
  statement.Bind(1, job_id);
  FT_ASSIGN_OR_RETURN(const bool found, statement.Step());
  if (!found) return NoSuchJob(job_id);
  return ReadJob(statement);
}

absl::StatusOr<std::optional<v1::Job>> SqliteSession::FindByRequestId(std::string_view request_id) {
  static const std::string sql =
      absl::StrCat("SELECT ", kJobColumns,
                   " FROM requests r JOIN jobs j USING (job_id) WHERE r.request_id = ?1");
  Statement statement = db_.Prepare(sql);
  statement.Bind(1, request_id);
  FT_ASSIGN_OR_RETURN(const bool found, statement.Step());
  if (!found) return std::optional<v1::Job>();
  FT_ASSIGN_OR_RETURN(v1::Job job, ReadJob(statement));
  return std::optional<v1::Job>(std::move(job));
}

absl::StatusOr<std::vector<v1::Job>> SqliteSession::JobsInStates(
    const std::vector<v1::JobState>& states) {
  std::string list;
  for (const v1::JobState state : states)
    absl::StrAppend(&list, list.empty() ? "" : ",", static_cast<int>(state));
  Statement statement =
      db_.PrepareOnce(absl::StrCat("SELECT ", kJobColumns, " FROM jobs j WHERE j.state IN (", list,
                                   ") ORDER BY j.rank, j.create_time, j.job_id"));
  std::vector<v1::Job> jobs;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return jobs;
    FT_ASSIGN_OR_RETURN(v1::Job job, ReadJob(statement));
    jobs.push_back(std::move(job));
  }
}

absl::StatusOr<std::vector<std::shared_ptr<const std::string>>> SqliteSession::EventsAfter(
    std::string_view job_id, int64_t after_seq, int limit) {
  std::vector<std::shared_ptr<const std::string>> events;
  {
    Statement statement = db_.Prepare(
        "SELECT event FROM events WHERE job_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    statement.Bind(1, job_id)
        .Bind(2, after_seq)
        .Bind(3, static_cast<int64_t>(limit < 0 ? 0 : limit));
    while (true) {
      FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
      if (!row) break;
      events.push_back(std::make_shared<const std::string>(statement.Text(0)));
    }
  }
  if (events.empty()) FT_RETURN_IF_ERROR(RequireJob(job_id));
  return events;
}

absl::StatusOr<int64_t> SqliteSession::LastSeq(std::string_view job_id) {
  FT_RETURN_IF_ERROR(RequireJob(job_id));
  Statement statement = db_.Prepare("SELECT coalesce(max(seq), 0) FROM events WHERE job_id = ?1");
  statement.Bind(1, job_id);
  FT_RETURN_IF_ERROR(statement.Step().status());
  return statement.Int(0);
}

absl::StatusOr<std::vector<Attempt>> SqliteSession::ReadAttempts(Statement statement) {
  std::vector<Attempt> attempts;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return attempts;
    Attempt attempt;
    attempt.job_id = statement.Text(0);
    attempt.number = static_cast<int32_t>(statement.Int(1));
    attempt.token = statement.Text(2);
    attempt.pid = statement.Int(3);
    attempt.pid_start_ticks = statement.Int(4);
    attempt.device = statement.Text(5);
    attempt.reserved_bytes = static_cast<uint64_t>(statement.Int(6));
    attempt.start_time = FromNanos(statement.Int(7));
    if (!statement.IsNull(8)) attempt.end_time = FromNanos(statement.Int(8));
    attempt.acknowledged_spool_seq = statement.Int(9);
    attempt.outcome = statement.Text(10);
    attempts.push_back(std::move(attempt));
  }
}

absl::StatusOr<std::vector<Attempt>> SqliteSession::Attempts(std::string_view job_id) {
  Statement statement = db_.Prepare(
      absl::StrCat("SELECT ", kAttemptColumns, " FROM attempts WHERE job_id = ?1 ORDER BY number"));
  statement.Bind(1, job_id);
  return ReadAttempts(std::move(statement));
}

absl::StatusOr<std::vector<Attempt>> SqliteSession::LiveAttempts() {
  return ReadAttempts(
      db_.Prepare(absl::StrCat("SELECT ", kAttemptColumns,
                               " FROM attempts WHERE end_time IS NULL ORDER BY job_id, number")));
}

absl::StatusOr<std::optional<Attempt>> SqliteSession::AttemptByToken(std::string_view token) {
  Statement statement =
      db_.Prepare(absl::StrCat("SELECT ", kAttemptColumns, " FROM attempts WHERE token = ?1"));
  statement.Bind(1, token);
  FT_ASSIGN_OR_RETURN(std::vector<Attempt> attempts, ReadAttempts(std::move(statement)));
  if (attempts.empty()) return std::optional<Attempt>();
  return std::optional<Attempt>(std::move(attempts.front()));
}

absl::StatusOr<std::optional<Upload>> SqliteSession::FindUpload(std::string_view sha256) {
  Statement statement =
      db_.Prepare("SELECT size_bytes, name, create_time FROM uploads WHERE sha256 = ?1");
  statement.Bind(1, sha256);
  FT_ASSIGN_OR_RETURN(const bool found, statement.Step());
  if (!found) return std::optional<Upload>();
  Upload upload;
  upload.sha256 = std::string(sha256);
  upload.size_bytes = static_cast<uint64_t>(statement.Int(0));
  upload.name = statement.Text(1);
  upload.create_time = FromNanos(statement.Int(2));
  return std::optional<Upload>(std::move(upload));
}

absl::StatusOr<std::vector<std::pair<v1::JobState, int64_t>>> SqliteSession::CountByState() {
  Statement statement =
      db_.Prepare("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state");
  std::vector<std::pair<v1::JobState, int64_t>> counts;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return counts;
    counts.emplace_back(static_cast<v1::JobState>(statement.Int(0)), statement.Int(1));
  }
}

// Writes
// --------------------------------------------------------------------------------------------------------------
// Every check comes before the first change, so that an error leaves nothing even if the caller
// goes on after it.

absl::Status SqliteSession::PutLabels(const v1::Job& job, int64_t create_time) {
  for (const auto& [name, value] : job.labels()) {
    Statement statement = db_.Prepare(
        "INSERT INTO labels (name, value, create_time, job_id) VALUES (?1, ?2, ?3, ?4)");
    statement.Bind(1, name).Bind(2, value).Bind(3, create_time).Bind(4, job.job_id());
    FT_RETURN_IF_ERROR(statement.Run());
  }
  return absl::OkStatus();
}

absl::Status SqliteSession::InsertJob(const v1::Job& job) {
  if (job.job_id().empty()) return absl::InvalidArgumentError("a job needs an id");
  if (LegalNextStates(job.state()).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("job '", job.job_id(), "' has no known state: ", job.state()));
  }
  if (RequireJob(job.job_id()).ok()) {
    return absl::AlreadyExistsError(absl::StrCat("job '", job.job_id(), "' exists already"));
  }
  if (!job.request_id().empty()) {
    {
      Statement taken = db_.Prepare("SELECT job_id FROM requests WHERE request_id = ?1");
      taken.Bind(1, job.request_id());
      FT_ASSIGN_OR_RETURN(const bool found, taken.Step());
      if (found) {
        return absl::AlreadyExistsError(absl::StrCat(
            "request_id '", job.request_id(), "' has made job '", taken.Text(0),
            "' already (it may have been deleted since); use a new request_id for a new job"));
      }
    }
    Statement request = db_.Prepare("INSERT INTO requests (request_id, job_id) VALUES (?1, ?2)");
    request.Bind(1, job.request_id()).Bind(2, job.job_id());
    FT_RETURN_IF_ERROR(request.Run());
  }
  const int64_t create_time = TimestampNanos(job.create_time());
  {
    Statement insert = db_.Prepare(
        "INSERT INTO jobs (job_id, owner, state, rank, create_time, job) VALUES (?1, ?2, ?3, ?4, "
        "?5, ?6)");
    insert.Bind(1, job.job_id()).Bind(2, job.owner()).Bind(3, static_cast<int64_t>(job.state()));
    insert.Bind(4, -static_cast<int64_t>(job.priority())).Bind(5, create_time);
    insert.BindBlob(6, job.SerializeAsString());
    FT_RETURN_IF_ERROR(insert.Run());
  }
  return PutLabels(job, create_time);
}

absl::Status SqliteSession::UpdateJob(const v1::Job& job) {
  FT_ASSIGN_OR_RETURN(const v1::Job old, GetJob(job.job_id()));
  if (!IsLegalTransition(old.state(), job.state())) {
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job.job_id(), "' is ", JobStateName(old.state()),
                     " and cannot become ", JobStateName(job.state()),
                     "; from there it may become ", JobStateNames(LegalNextStates(old.state()))));
  }
  const int64_t create_time = TimestampNanos(old.create_time());
  if (old.request_id() != job.request_id() || create_time != TimestampNanos(job.create_time())) {
    return absl::InvalidArgumentError(
        absl::StrCat("job '", job.job_id(), "': request_id and create_time never change"));
  }
  {
    Statement update = db_.Prepare(
        "UPDATE jobs SET owner = ?2, state = ?3, rank = ?4, job = ?5 WHERE job_id = ?1");
    update.Bind(1, job.job_id()).Bind(2, job.owner()).Bind(3, static_cast<int64_t>(job.state()));
    update.Bind(4, -static_cast<int64_t>(job.priority())).BindBlob(5, job.SerializeAsString());
    FT_RETURN_IF_ERROR(update.Run());
  }
  const auto same = [&] {
    if (old.labels_size() != job.labels_size()) return false;
    for (const auto& [name, value] : job.labels()) {
      const auto it = old.labels().find(name);
      if (it == old.labels().end() || it->second != value) return false;
    }
    return true;
  };
  if (same()) return absl::OkStatus();
  {
    Statement clear = db_.Prepare("DELETE FROM labels WHERE job_id = ?1");
    clear.Bind(1, job.job_id());
    FT_RETURN_IF_ERROR(clear.Run());
  }
  return PutLabels(job, create_time);
}

absl::Status SqliteSession::DeleteJob(std::string_view job_id) {
  FT_RETURN_IF_ERROR(RequireJob(job_id));
  Statement statement = db_.Prepare("DELETE FROM jobs WHERE job_id = ?1");
  statement.Bind(1, job_id);
  return statement.Run();
}

absl::StatusOr<v1::JobEvent> SqliteSession::AppendEvent(std::string_view job_id,
                                                        v1::JobEvent event) {
  FT_ASSIGN_OR_RETURN(const int64_t last, LastSeq(job_id));
  event.set_seq(last + 1);
  if (!event.has_time()) {
    const int64_t now = absl::GetCurrentTimeNanos();
    event.mutable_time()->set_seconds(now / 1000000000);
    event.mutable_time()->set_nanos(static_cast<int32_t>(now % 1000000000));
  }
  auto bytes = std::make_shared<const std::string>(event.SerializeAsString());
  Statement statement = db_.Prepare("INSERT INTO events (job_id, seq, event) VALUES (?1, ?2, ?3)");
  statement.Bind(1, job_id).Bind(2, event.seq()).BindBlob(3, *bytes);
  FT_RETURN_IF_ERROR(statement.Run());
  events_.push_back({std::string(job_id), event.seq(), std::move(bytes)});
  return event;
}

absl::Status SqliteSession::InsertAttempt(const Attempt& attempt) {
  FT_RETURN_IF_ERROR(RequireJob(attempt.job_id));
  {
    Statement newest =
        db_.Prepare("SELECT coalesce(max(number), 0) FROM attempts WHERE job_id = ?1");
    newest.Bind(1, attempt.job_id);
    FT_RETURN_IF_ERROR(newest.Step().status());
    if (newest.Int(0) >= attempt.number) {
      return absl::AlreadyExistsError(absl::StrCat("job '", attempt.job_id, "': attempt ",
                                                   attempt.number, " is not newer than attempt ",
                                                   newest.Int(0)));
    }
  }
  Statement insert =
      db_.Prepare(absl::StrCat("INSERT INTO attempts (", kAttemptColumns,
                               ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"));
  insert.Bind(1, attempt.job_id)
      .Bind(2, int64_t{attempt.number})
      .Bind(3, attempt.token)
      .Bind(4, attempt.pid);
  insert.Bind(5, attempt.pid_start_ticks).Bind(6, attempt.device);
  insert.Bind(7, static_cast<int64_t>(attempt.reserved_bytes)).Bind(8, Nanos(attempt.start_time));
  attempt.end_time ? insert.Bind(9, Nanos(*attempt.end_time)) : insert.BindNull(9);
  insert.Bind(10, attempt.acknowledged_spool_seq).Bind(11, attempt.outcome);
  return insert.Run();
}

absl::Status SqliteSession::UpdateAttempt(const Attempt& attempt) {
  {
    Statement update = db_.Prepare(
        "UPDATE attempts SET token = ?3, pid = ?4, pid_start_ticks = ?5, device = ?6, "
        "reserved_bytes = ?7, "
        "start_time = ?8, end_time = ?9, acknowledged_spool_seq = ?10, outcome = ?11 WHERE job_id "
        "= ?1 AND number = ?2");
    update.Bind(1, attempt.job_id)
        .Bind(2, int64_t{attempt.number})
        .Bind(3, attempt.token)
        .Bind(4, attempt.pid);
    update.Bind(5, attempt.pid_start_ticks).Bind(6, attempt.device);
    update.Bind(7, static_cast<int64_t>(attempt.reserved_bytes)).Bind(8, Nanos(attempt.start_time));
    attempt.end_time ? update.Bind(9, Nanos(*attempt.end_time)) : update.BindNull(9);
    update.Bind(10, attempt.acknowledged_spool_seq).Bind(11, attempt.outcome);
    FT_RETURN_IF_ERROR(update.Run());
  }
  if (sqlite3_changes(db_.handle()) == 0) {
    return absl::NotFoundError(
        absl::StrCat("job '", attempt.job_id, "' has no attempt ", attempt.number));
  }
  return absl::OkStatus();
}

absl::Status SqliteSession::PutUpload(const Upload& upload) {
  Statement statement = db_.Prepare(
      "INSERT INTO uploads (sha256, size_bytes, name, create_time) VALUES (?1, ?2, ?3, ?4) "
      "ON CONFLICT (sha256) DO UPDATE SET size_bytes = excluded.size_bytes");
  statement.Bind(1, upload.sha256)
      .Bind(2, static_cast<int64_t>(upload.size_bytes))
      .Bind(3, upload.name);
  statement.Bind(4, Nanos(upload.create_time));
  return statement.Run();
}

}  // namespace finetuned
