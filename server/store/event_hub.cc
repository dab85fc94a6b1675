#include "server/store/event_hub.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace finetuned {
namespace {

// State of one watcher, shared with reads of the store that are under way.
struct Watch {
  std::string job_id;

  // Everything below is guarded by Core::mutex, but for `notify`.
  int64_t next = 1;                    // seq of the next event to hand out
  std::deque<EventHub::Event> behind;  // events from the store, from `next` on
  bool reading = false;                // a read of the store is under way
  bool caught_up = false;              // the store had nothing from `next` on when it was read
  bool waiting = false;                // Next has returned nothing: notify when that changes
  absl::Status error;

  std::mutex notify_mutex;  // guards `notify`; held while it runs
  std::function<void()> notify;
};

// Recent events of one watched job: seqs first … first + events.size() − 1.
struct Ring {
  int64_t first = 0;
  std::deque<EventHub::Event> events;
  size_t bytes = 0;
  std::unordered_set<std::shared_ptr<Watch>> watches;

  int64_t end() const { return first + static_cast<int64_t>(events.size()); }
};

}  // namespace

// Why no event is lost between store and ring: a job's ring exists before its watcher first reads
// the store. An event whose listener call came before the ring was made had been committed before
// that read began, so the read sees it; any other event enters the ring. Both ways it is found by
// its seq, so none is handed out twice either.
struct EventHub::Core : public std::enable_shared_from_this<Core> {
  Core(JobStore* store, EventHubOptions options) : store(store), options(options) {}

  JobStore* const store;
  const EventHubOptions options;

  mutable std::mutex mutex;  // guards what follows, but for `notifier`
  std::condition_variable wake;
  std::unordered_map<std::string, Ring> rings;
  int64_t watchers = 0;
  std::unordered_set<std::string> changed;  // jobs whose watchers are to be told
  bool stopping = false;
  std::thread notifier;

  void Add(const std::string& job_id, int64_t seq, Event event) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto it = rings.find(job_id);
    if (it == rings.end()) return;  // nobody watches
    Ring& ring = it->second;
    if (ring.events.empty() || seq != ring.end()) {
      ring.events.clear();  // a jump cannot be, and if it is, the store fills the gap
      ring.bytes = 0;
      ring.first = seq;
    }
    ring.bytes += event->size();
    ring.events.push_back(std::move(event));
    while (ring.events.size() > 1 &&
           (ring.events.size() > options.ring_events || ring.bytes > options.ring_bytes)) {
      ring.bytes -= ring.events.front()->size();
      ring.events.pop_front();
      ++ring.first;
    }
    changed.insert(job_id);
    wake.notify_one();
  }

  // Tells waiting watchers, off the store's writer thread: a thousand of them must not delay the
  // next commit.
  void NotifyLoop() {
    while (true) {
      std::vector<std::shared_ptr<Watch>> ready;
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [this] { return stopping || !changed.empty(); });
        if (stopping) return;
        for (const std::string& job_id : changed) {
          const auto it = rings.find(job_id);
          if (it == rings.end()) continue;
          for (const std::shared_ptr<Watch>& watch : it->second.watches) {
            if (watch->waiting && it->second.end() > watch->next) {
              watch->waiting = false;
              ready.push_back(watch);
            }
          }
        }
        changed.clear();
      }
      for (const std::shared_ptr<Watch>& watch : ready) Notify(*watch);
    }
  }

  static void Notify(Watch& watch) {
    std::lock_guard<std::mutex> lock(watch.notify_mutex);
    if (watch.notify) watch.notify();
  }

  absl::StatusOr<std::vector<Event>> Next(const std::shared_ptr<Watch>& watch, int limit) {
    std::vector<Event> events;
    bool read = false;
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (!watch->error.ok()) return watch->error;
      const size_t most = static_cast<size_t>(std::max(1, limit));
      while (!watch->behind.empty() && events.size() < most) {
        events.push_back(std::move(watch->behind.front()));
        watch->behind.pop_front();
        ++watch->next;
      }
      const Ring& ring = rings.at(watch->job_id);
      if (watch->behind.empty() && !ring.events.empty() && watch->next >= ring.first) {
        while (events.size() < most && watch->next < ring.end()) {
          events.push_back(ring.events[static_cast<size_t>(watch->next - ring.first)]);
          ++watch->next;
        }
        watch->caught_up = true;
      }
      if (!events.empty()) return events;
      watch->waiting = true;
      const bool fell_behind = !ring.events.empty() && watch->next < ring.first;
      if (!watch->reading && (fell_behind || !watch->caught_up)) read = watch->reading = true;
    }
    if (read) ReadStore(watch);
    return events;
  }

  void ReadStore(const std::shared_ptr<Watch>& watch) {
    int64_t after;
    {
      std::lock_guard<std::mutex> lock(mutex);
      after = watch->next - 1;
    }
    store->Read([core = shared_from_this(), watch, after](StoreReader& reader) {
      auto events = reader.EventsAfter(watch->job_id, after, core->options.store_page);
      bool tell = false;
      {
        std::lock_guard<std::mutex> lock(core->mutex);
        watch->reading = false;
        if (!events.ok()) {
          watch->error = events.status();
        } else {
          watch->behind.assign(events->begin(), events->end());
          watch->caught_up = static_cast<int>(events->size()) < core->options.store_page;
        }
        // With nothing found, an event that came during the read is in the ring and may have been
        // announced already.
        const auto it = core->rings.find(watch->job_id);
        const bool in_ring = it != core->rings.end() && it->second.end() > watch->next;
        if (watch->waiting && (!watch->error.ok() || !watch->behind.empty() || in_ring)) {
          watch->waiting = false;
          tell = true;
        }
      }
      if (tell) Notify(*watch);
    });
  }

  void Unsubscribe(const std::shared_ptr<Watch>& watch) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      const auto it = rings.find(watch->job_id);
      it->second.watches.erase(watch);
      if (it->second.watches.empty()) rings.erase(it);
      --watchers;
    }
    std::lock_guard<std::mutex> lock(watch->notify_mutex);
    watch->notify = nullptr;
  }
};

namespace {

class WatcherImpl final : public EventHub::Watcher {
 public:
  WatcherImpl(std::shared_ptr<EventHub::Core> core, std::shared_ptr<Watch> watch)
      : core_(std::move(core)), watch_(std::move(watch)) {}
  ~WatcherImpl() override { core_->Unsubscribe(watch_); }

  absl::StatusOr<std::vector<EventHub::Event>> Next(int limit) override {
    return core_->Next(watch_, limit);
  }

 private:
  const std::shared_ptr<EventHub::Core> core_;
  const std::shared_ptr<Watch> watch_;
};

}  // namespace

EventHub::EventHub(JobStore* store, EventHubOptions options)
    : core_(std::make_shared<Core>(store, options)) {
  core_->notifier = std::thread([core = core_.get()] { core->NotifyLoop(); });
}

EventHub::~EventHub() {
  {
    std::lock_guard<std::mutex> lock(core_->mutex);
    core_->stopping = true;
    core_->wake.notify_one();
  }
  core_->notifier.join();
}

void EventHub::OnEvent(const std::string& job_id, int64_t seq, Event event) {
  core_->Add(job_id, seq, std::move(event));
}

std::unique_ptr<EventHub::Watcher> EventHub::Subscribe(const std::string& job_id, int64_t after_seq,
                                                       std::function<void()> notify) {
  auto watch = std::make_shared<Watch>();
  watch->job_id = job_id;
  watch->next = std::clamp<int64_t>(after_seq, 0, std::numeric_limits<int64_t>::max() - 1) + 1;
  {
    std::lock_guard<std::mutex> lock(watch->notify_mutex);
    watch->notify = std::move(notify);
  }
  std::lock_guard<std::mutex> lock(core_->mutex);
  core_->rings[job_id].watches.insert(watch);
  ++core_->watchers;
  return std::make_unique<WatcherImpl>(core_, std::move(watch));
}

int64_t EventHub::watchers() const {
  std::lock_guard<std::mutex> lock(core_->mutex);
  return core_->watchers;
}

}  // namespace finetuned
