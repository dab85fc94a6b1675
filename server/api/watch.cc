#include "server/api/watch.h"

#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "proto/errors/rpc_errors.h"
#include "server/api/request_checks.h"
#include "server/store/job_state.h"

namespace finetuned {
namespace {

constexpr int kEventsAtOnce = 64;

// True when the serialized event has a StateChange; skips over everything without building
// messages.
bool ChangesState(const std::string& serialized) {
  google::protobuf::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(serialized.data()),
                                               static_cast<int>(serialized.size()));
  while (uint32_t tag = input.ReadTag()) {
    if (google::protobuf::internal::WireFormatLite::GetTagFieldNumber(tag) ==
        v1::JobEvent::kStateFieldNumber)
      return true;
    if (!google::protobuf::internal::WireFormatLite::SkipField(&input, tag)) return false;
  }
  return false;
}

}  // namespace

// Lives until gRPC is done with it and no read of the store refers to it any more.
class WatchStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(JobStore* store, EventHub* hub, WatchRegistry* registry,
              const v1::WatchJobRequest& request)
      : store_(store),
        hub_(hub),
        registry_(registry),
        job_id_(request.job_id()),
        sent_seq_(request.after_seq()) {}

  void Start() {
    self_ = shared_from_this();
    if (!registry_->Add(self_)) return EndForShutdown();
    store_->Read([self = self_](StoreReader& reader) {
      auto job = reader.GetJob(self->job_id_);
      if (!job.ok()) return self->End(WithReason(job.status(), "JOB_NOT_FOUND"));
      auto last = reader.LastSeq(self->job_id_);
      if (!last.ok()) return self->End(last.status());
      if (self->sent_seq_ > *last)
        return self->End(
            WithReason(absl::OutOfRangeError(absl::StrCat("after_seq is ", self->sent_seq_,
                                                          ", but job ", self->job_id_, " has ",
                                                          *last, " events; allowed: 0 to ", *last)),
                       "AFTER_SEQ_AHEAD"));
      self->Subscribe();
    });
  }

  // Thread-safe; the first end wins.
  void End(const absl::Status& status) {
    std::unique_lock<std::mutex> lock(mutex_);
    EndLocked(lock, status);
  }

  void EndForShutdown() {
    std::unique_lock<std::mutex> lock(mutex_);
    EndLocked(
        lock,
        WithReason(
            absl::UnavailableError(absl::StrCat(
                "the server is stopping; the job goes on: resume with after_seq=", sent_seq_)),
            "SERVER_STOPPING", {{"after_seq", absl::StrCat(sent_seq_)}, {"job_id", job_id_}}));
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock<std::mutex> lock(mutex_);
    writing_ = false;
    written_ = true;
    if (ok) ++sent_seq_;
    if (end_) return FinishNow(lock);
    if (!ok) return EndLocked(lock, absl::CancelledError("the client has gone"));
    Pump(lock);
  }

  void OnCancel() override { End(absl::CancelledError("the client has gone")); }

  void OnDone() override {
    registry_->Remove(this);
    std::unique_ptr<EventHub::Watcher> watcher;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      watcher = std::move(watcher_);
    }
    // Waits for a running notify, which takes the mutex.
    watcher.reset();
    // Reads under way may hold the stream a little longer.
    std::shared_ptr<WatchStream> self = std::move(self_);
  }

 private:
  void Subscribe() {
    auto watcher = hub_->Subscribe(job_id_, sent_seq_, [this] {
      std::unique_lock<std::mutex> lock(mutex_);
      Pump(lock);
    });
    std::unique_lock<std::mutex> lock(mutex_);
    if (end_) {
      // Ended meanwhile; OnDone may be over.
      lock.unlock();
      watcher.reset();
      return;
    }
    watcher_ = std::move(watcher);
    Pump(lock);
  }

  // Sends the next event, if there is one and no write is under way. Gives the lock up.
  void Pump(std::unique_lock<std::mutex>& lock) {
    if (end_ || writing_ || !watcher_) return;
    if (ready_.empty()) {
      auto events = watcher_->Next(kEventsAtOnce);
      if (!events.ok()) return EndLocked(lock, events.status());
      ready_.insert(ready_.end(), events->begin(), events->end());
    }
    if (ready_.empty()) return EndIfFinal(lock);
    EventHub::Event event = std::move(ready_.front());
    ready_.pop_front();
    if (ChangesState(*event)) {
      v1::JobEvent parsed;
      may_be_final_ = parsed.ParseFromString(*event) && IsFinal(parsed.state().to());
    }
    const grpc::Slice slice(*event);
    buffer_ = grpc::ByteBuffer(&slice, 1);
    grpc::WriteOptions options;
    // More is ready: let the transport join the messages. Not with the first: it carries the
    // initial metadata, and the transport would hold back both, and OnWriteDone, until a next write
    // that waits for OnWriteDone.
    if (written_ && !ready_.empty()) options.set_buffer_hint();
    writing_ = true;  // nobody else writes or finishes until OnWriteDone
    lock.unlock();
    StartWrite(&buffer_, options);
  }

  // Nothing is left to send. Asks the store whether the job is over and this was its last event:
  // the state and the event of a change are one transaction, so the answer is exact.
  void EndIfFinal(std::unique_lock<std::mutex>& lock) {
    if (!may_be_final_ || asking_) return;
    asking_ = true;
    lock.unlock();
    store_->Read([self = shared_from_this()](StoreReader& reader) {
      auto job = reader.GetJob(self->job_id_);
      auto last = reader.LastSeq(self->job_id_);
      std::unique_lock<std::mutex> lock(self->mutex_);
      self->asking_ = false;
      if (!job.ok()) return self->EndLocked(lock, WithReason(job.status(), "JOB_NOT_FOUND"));
      if (!last.ok()) return self->EndLocked(lock, last.status());
      const bool over = IsFinal(job->state());
      if (over && self->sent_seq_ >= *last && !self->writing_)
        return self->EndLocked(lock, absl::OkStatus());
      // If there is more to send, the hub's next notify goes on, and the question is asked again
      // after it.
      self->may_be_final_ = over;
    });
  }

  void EndLocked(std::unique_lock<std::mutex>& lock, const absl::Status& status) {
    if (end_) return;
    end_ = status;
    if (!writing_) FinishNow(lock);
  }

  // Called once: by EndLocked, or by the OnWriteDone after it.
  void FinishNow(std::unique_lock<std::mutex>& lock) {
    const absl::Status status = *end_;
    lock.unlock();
    Finish(ToGrpcStatus(status));
  }

  JobStore* const store_;
  EventHub* const hub_;
  WatchRegistry* const registry_;
  const std::string job_id_;
  std::shared_ptr<WatchStream> self_;

  std::mutex mutex_;
  std::unique_ptr<EventHub::Watcher> watcher_;
  std::deque<EventHub::Event> ready_;
  grpc::ByteBuffer buffer_;  // of the write under way
  int64_t sent_seq_;
  bool writing_ = false;
  bool written_ = false;  // the first write is done
  bool asking_ = false;
  // The last event sent may have been the job's last; true at first, as the job may have ended
  // before.
  bool may_be_final_ = true;
  std::optional<absl::Status> end_;
};

namespace {

class RefusedWatch : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedWatch(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

bool WatchRegistry::Add(std::shared_ptr<WatchStream> stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ended_) return false;
  streams_[stream.get()] = stream;
  return true;
}

void WatchRegistry::Remove(WatchStream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(stream);
}

void WatchRegistry::EndAll() {
  std::map<WatchStream*, std::weak_ptr<WatchStream>> streams;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    streams = streams_;
  }
  for (auto& [raw, weak] : streams)
    if (auto stream = weak.lock()) stream->EndForShutdown();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseWatch(const absl::Status& status) {
  return new RefusedWatch(status);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartWatch(JobStore* store, EventHub* hub,
                                                       WatchRegistry* registry,
                                                       const grpc::ByteBuffer& request) {
  v1::WatchJobRequest parsed;
  grpc::ByteBuffer copy(request);
  const grpc::Status status =
      grpc::SerializationTraits<v1::WatchJobRequest>::Deserialize(&copy, &parsed);
  if (!status.ok())
    return RefuseWatch(absl::InvalidArgumentError("the request is no WatchJobRequest"));
  absl::Status check = CheckShape(parsed);
  if (check.ok()) check = CheckJobId("job_id", parsed.job_id());
  if (check.ok()) check = CheckRange("after_seq", parsed.after_seq(), 0, INT64_MAX);
  if (!check.ok()) return RefuseWatch(check);
  auto stream = std::make_shared<WatchStream>(store, hub, registry, parsed);
  stream->Start();
  return stream.get();
}

}  // namespace finetuned
