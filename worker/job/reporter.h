// The worker's side of the conversation with the server: an append-only spool file and a session that sends from it.
//
// Every event is in the spool before anything else happens, so the loss of the server, the connection or this process
// loses nothing: a restarted server reads what was not acknowledged from the file or from the reconnected session.
// Spool file: for each record its length as a varint, then the SpoolRecord (proto/finetuned/v1/worker.proto).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "finetuned/v1/worker.pb.h"
#include "worker/training/trainer.h"

namespace finetuned {

struct ReporterOptions {
  std::string spool_path;
  std::string socket;  // unix socket of the server; empty: spool only
  std::string token;
  std::string job_id;
  int32_t attempt = 0;
  int64_t runtime_limit_seconds = 0;  // 0: none; then stop_requested() says kTimeout
};

class Reporter {
 public:
  // RESOURCE_EXHAUSTED or UNAVAILABLE when the spool cannot be created.
  static absl::StatusOr<std::unique_ptr<Reporter>> Start(const ReporterOptions& options);
  ~Reporter();

  // Thread-safe. Fills time, attempt and (INFO) level where unset.
  void Emit(v1::JobEvent event);
  void Log(v1::Level level, std::string text);
  void StageStarted(v1::Stage stage);
  void StageFinished(v1::Stage stage, double seconds, bool reused);
  // At most two a second of one stage are kept; the first and the last always are.
  void Progress(v1::Progress progress);

  StopRequest stop_requested() const;
  // SIGTERM: pause. Async-signal-safe.
  void RequestPause() { pause_ = true; }

  // The attempt's last record: fsynced, then sent; waits for the server's acknowledgement at most `patience` (the server
  // reads the file itself when this process is gone).
  void End(v1::AttemptEnd end, std::chrono::seconds patience);

 private:
  explicit Reporter(const ReporterOptions& options) : options_(options) {}
  void Append(v1::SpoolRecord record, bool sync);
  void SessionLoop();
  // One connection; returns when it breaks.
  void RunSession();

  const ReporterOptions options_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int spool_fd_ = -1;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::SpoolRecord> unacknowledged_;  // guarded by mutex_; spool_seq rising without gaps
  int64_t next_seq_ = 1;                        // guarded by mutex_
  int64_t acknowledged_ = 0;                    // guarded by mutex_
  bool closing_ = false;                        // guarded by mutex_
  v1::Stage stage_ = v1::STAGE_UNSPECIFIED;     // guarded by mutex_
  std::chrono::steady_clock::time_point last_progress_;  // guarded by mutex_
  v1::Stage last_progress_stage_ = v1::STAGE_UNSPECIFIED;  // guarded by mutex_

  std::atomic<int64_t> progress_counter_{0};
  std::atomic<bool> pause_{false}, cancel_{false};
  std::thread session_;
};

}  // namespace finetuned
