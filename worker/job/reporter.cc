#include "worker/job/reporter.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "finetuned/v1/worker.grpc.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/util/time_util.h"
#include "proto/base/file_util.h"
#include "worker/monitor/memory.h"

namespace finetuned {
namespace {

using std::chrono::steady_clock;

constexpr auto kProgressInterval = std::chrono::milliseconds(500);
constexpr auto kFirstBackoff = std::chrono::milliseconds(100), kLongestBackoff = std::chrono::milliseconds(5000);
// The attempt has been taken over or its token is unknown: this process must write nothing more.
constexpr int kFencedExitCode = 75;

std::string Delimited(const v1::SpoolRecord& record) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.WriteVarint64(record.ByteSizeLong());
  record.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

[[noreturn]] void ExitFenced(const std::string& why) {
  std::fprintf(stderr, "finetune-worker: %s; this attempt ends without writing anything more\n", why.c_str());
  std::_Exit(kFencedExitCode);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Reporter>> Reporter::Start(const ReporterOptions& options) {
  auto reporter = std::unique_ptr<Reporter>(new Reporter(options));
  reporter->spool_fd_ = open(options.spool_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (reporter->spool_fd_ < 0) return ErrnoStatus(errno, absl::StrCat("cannot create the event spool ", options.spool_path));
  if (!options.socket.empty()) reporter->session_ = std::thread([r = reporter.get()] { r->SessionLoop(); });
  return reporter;
}

Reporter::~Reporter() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (session_.joinable()) session_.join();
  if (spool_fd_ >= 0) close(spool_fd_);
}

void Reporter::Append(v1::SpoolRecord record, bool sync) {
  std::lock_guard lock(mutex_);
  record.set_spool_seq(next_seq_++);
  const std::string bytes = Delimited(record);
  // A full disk must not end a run that could go on: the record still travels over the session, and the write is tried
  // again whole so that the file never holds half a record.
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = write(spool_fd_, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      std::fprintf(stderr, "finetune-worker: cannot append to the event spool: %s\n", std::strerror(errno));
      if (written > 0) {
        const off_t end = lseek(spool_fd_, 0, SEEK_END);
        if (ftruncate(spool_fd_, end - static_cast<off_t>(written)) != 0) break;
      }
      break;
    }
    written += static_cast<size_t>(n);
  }
  if (sync) fsync(spool_fd_);
  unacknowledged_.push_back(std::move(record));
  ++progress_counter_;
  changed_.notify_all();
}

void Reporter::Emit(v1::JobEvent event) {
  if (!event.has_time()) *event.mutable_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  if (event.level() == v1::LEVEL_UNSPECIFIED) event.set_level(v1::INFO);
  event.set_attempt(options_.attempt);
  const bool durable = event.has_checkpoint() || event.has_stage() || event.has_evaluation();
  v1::SpoolRecord record;
  *record.mutable_event() = std::move(event);
  Append(std::move(record), durable);
}

void Reporter::Log(v1::Level level, std::string text) {
  std::fprintf(stderr, "%s %s\n", v1::Level_Name(level).c_str(), text.c_str());
  v1::JobEvent event;
  event.set_level(level);
  event.mutable_log()->set_text(std::move(text));
  Emit(std::move(event));
}

void Reporter::StageStarted(v1::Stage stage) {
  {
    std::lock_guard lock(mutex_);
    stage_ = stage;
  }
  v1::JobEvent event;
  event.mutable_stage()->set_stage(stage);
  Emit(std::move(event));
}

void Reporter::StageFinished(v1::Stage stage, double seconds, bool reused) {
  v1::JobEvent event;
  event.mutable_stage()->set_stage(stage);
  event.mutable_stage()->set_finished(true);
  event.mutable_stage()->set_seconds(seconds);
  event.mutable_stage()->set_reused(reused);
  Emit(std::move(event));
}

void Reporter::Progress(v1::Progress progress) {
  ++progress_counter_;
  {
    std::lock_guard lock(mutex_);
    const auto now = steady_clock::now();
    const bool last = progress.total() > 0 && progress.done() >= progress.total();
    if (progress.stage() == last_progress_stage_ && !last && now - last_progress_ < kProgressInterval) return;
    last_progress_ = now;
    last_progress_stage_ = progress.stage();
  }
  v1::JobEvent event;
  *event.mutable_progress() = std::move(progress);
  Emit(std::move(event));
}

StopRequest Reporter::stop_requested() const {
  if (cancel_) return StopRequest::kCancel;
  if (pause_) return StopRequest::kPause;
  if (options_.runtime_limit_seconds > 0 &&
      steady_clock::now() - start_ >= std::chrono::seconds(options_.runtime_limit_seconds)) {
    return StopRequest::kTimeout;
  }
  return StopRequest::kNone;
}

void Reporter::End(v1::AttemptEnd end, std::chrono::seconds patience) {
  v1::SpoolRecord record;
  *record.mutable_end() = std::move(end);
  Append(std::move(record), /*sync=*/true);
  if (!session_.joinable()) return;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return acknowledged_ == next_seq_ - 1; });
}

void Reporter::SessionLoop() {
  auto backoff = std::chrono::duration_cast<std::chrono::milliseconds>(kFirstBackoff);
  while (true) {
    const auto start = steady_clock::now();
    RunSession();
    if (steady_clock::now() - start > std::chrono::seconds(10)) backoff = kFirstBackoff;
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, backoff, [&] { return closing_; })) return;
    backoff = std::min(backoff * 2, std::chrono::duration_cast<std::chrono::milliseconds>(kLongestBackoff));
  }
}

void Reporter::RunSession() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a fresh connection, not one in back-off
  const auto channel = grpc::CreateCustomChannel("unix:" + options_.socket, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::WorkerService::NewStub(channel);

  v1::RegisterRequest request;
  request.set_attempt_token(options_.token);
  request.set_job_id(options_.job_id);
  request.set_attempt(options_.attempt);
  request.set_pid(getpid());
  v1::RegisterResponse response;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const grpc::Status status = stub->Register(&context, request, &response);
    if (status.error_code() == grpc::StatusCode::PERMISSION_DENIED || status.error_code() == grpc::StatusCode::ABORTED) {
      ExitFenced(status.error_message());
    }
    if (!status.ok()) return;
  }
  auto acknowledge = [this](int64_t seq) {
    std::lock_guard lock(mutex_);
    acknowledged_ = std::max(acknowledged_, seq);
    while (!unacknowledged_.empty() && unacknowledged_.front().spool_seq() <= acknowledged_) unacknowledged_.pop_front();
    changed_.notify_all();
  };
  acknowledge(response.acknowledged_spool_seq());

  grpc::ClientContext context;
  const auto stream = stub->Session(&context);
  std::atomic<bool> broken{false};
  std::thread reader([&] {
    v1::ServerMessage message;
    while (stream->Read(&message)) {
      if (message.has_command()) {
        switch (message.command().kind()) {
          case v1::Command::PAUSE:
            pause_ = true;
            break;
          case v1::Command::CANCEL:
            cancel_ = true;
            break;
          case v1::Command::FENCED:
            ExitFenced("a newer attempt has this job");
          default:
            break;
        }
      } else {
        acknowledge(message.acknowledged_spool_seq());
      }
    }
    broken = true;
    changed_.notify_all();
  });

  v1::WorkerMessage hello;
  hello.mutable_hello()->set_attempt_token(options_.token);
  hello.mutable_hello()->set_job_id(options_.job_id);
  hello.mutable_hello()->set_attempt(options_.attempt);
  bool good = stream->Write(hello);

  const auto heartbeat_interval = std::chrono::milliseconds(std::max<int64_t>(100, response.heartbeat_interval_ms()));
  auto next_heartbeat = steady_clock::now();
  int64_t sent = response.acknowledged_spool_seq();
  while (good && !broken) {
    v1::WorkerMessage message;
    bool have = false;
    {
      std::unique_lock lock(mutex_);
      auto unsent = [&] { return !unacknowledged_.empty() && unacknowledged_.back().spool_seq() > sent; };
      changed_.wait_until(lock, next_heartbeat, [&] { return closing_ || broken || unsent(); });
      if (closing_ && !unsent()) break;
      if (unsent()) {
        const int64_t first = unacknowledged_.front().spool_seq();
        const int64_t next = std::max(sent + 1, first);
        *message.mutable_record() = unacknowledged_[static_cast<size_t>(next - first)];
        sent = next;
        have = true;
      } else if (steady_clock::now() >= next_heartbeat) {
        message.mutable_heartbeat()->set_stage(stage_);
        message.mutable_heartbeat()->set_progress_counter(progress_counter_);
        message.mutable_heartbeat()->set_host_rss_bytes(HostRssBytes());
        have = true;
        next_heartbeat = steady_clock::now() + heartbeat_interval;
      }
    }
    if (have) good = stream->Write(message);
  }
  if (good && !broken) stream->WritesDone();
  else context.TryCancel();
  reader.join();
  stream->Finish();
}

}  // namespace finetuned
