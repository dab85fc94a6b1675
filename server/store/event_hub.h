// EventHub: hands each job's events to its watchers, in order and without gaps, from memory while a
// watcher keeps up and from the store when it does not. Memory is bounded: one ring of recent
// events for each job that has watchers, and at most one page of older events for each watcher that
// is behind. A slow watcher slows nobody.
//
// Wiring: store->SetEventListener([&hub](auto& job_id, auto seq, auto event) { hub.OnEvent(job_id,
// seq, event); }). The store must outlive the hub, and be closed before or after it; the hub must
// outlive its watchers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/store/job_store.h"

namespace finetuned {

struct EventHubOptions {
  size_t ring_events = 1024;    // recent events kept for each watched job
  size_t ring_bytes = 1 << 20;  // and their bytes
  int store_page = 256;         // events of one read of the store
};

class EventHub {
 public:
  using Event = std::shared_ptr<const std::string>;  // a serialized v1::JobEvent

  // One watcher's place in one job's log. One thread at a time.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    // The next events, at most `limit`, in order; each is returned once. Empty: none is ready;
    // `notify` will be called once when it is worth calling Next again (which may still find none).
    // An error (NOT_FOUND once the job has been deleted; the store's own errors) ends the watch.
    // Never blocks on disk.
    virtual absl::StatusOr<std::vector<Event>> Next(int limit) = 0;
  };

  explicit EventHub(JobStore* store, EventHubOptions options = {});
  ~EventHub();

  // The store's listener. Events of one job must come in order.
  void OnEvent(const std::string& job_id, int64_t seq, Event event);

  // Watches from `after_seq` + 1. `notify` runs on a thread of the hub or the store, must not
  // block, may call Next, and must not destroy the watcher. Once the watcher's destructor has
  // returned, `notify` neither runs nor will run; so do not destroy a watcher while holding a lock
  // that `notify` takes.
  std::unique_ptr<Watcher> Subscribe(const std::string& job_id, int64_t after_seq,
                                     std::function<void()> notify);

  // Watchers now, for metrics.
  int64_t watchers() const;

  struct Core;

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace finetuned
